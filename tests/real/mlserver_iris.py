"""MLServer with scikit-learn's iris as a runtime of one's own, as `test_batcher.py` starts it.

Run as `mlserver_iris.py HTTP_PORT GRPC_PORT METRICS_PORT`, with the packages of
`requirements-mlserver.txt` before the others. MLServer's own batching stays off.
"""

import asyncio
import sys

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from sklearn.datasets import load_iris
from sklearn.svm import SVC


class Iris(MLModel):
    """Species of iris flowers, in the Open Inference Protocol."""

    async def load(self):
        features, species = load_iris(return_X_y=True)
        self.classifier = SVC().fit(features, species)
        return True

    async def predict(self, payload):
        classes = self.classifier.predict(NumpyCodec.decode_input(payload.inputs[0]))
        outputs = [NumpyCodec.encode_output("species", classes)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)


async def serve(http_port, grpc_port, metrics_port):
    settings = Settings(
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        parallel_workers=0,
    )
    await MLServer(settings).start([ModelSettings(name="iris", implementation=Iris)])


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:])))
