"""MLServer over a folder of models, which it loads and unloads as its repository API is told.

Run as `mlserver_repository.py HTTP_PORT GRPC_PORT METRICS_PORT FOLDER`, with the packages of
`requirements-mlserver.txt` before the others. A model answers with the number in its file `number`.
"""

import asyncio
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel, MLServer, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from mlserver.utils import get_model_uri


class Number(MLModel):
    """Says its number, which it read when it was loaded."""

    async def load(self):
        self.number = int(Path(await get_model_uri(self.settings)).read_text())
        return True

    async def predict(self, payload):
        outputs = [NumpyCodec.encode_output("number", np.array([self.number]))]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)


async def serve(http_port, grpc_port, metrics_port, folder):
    settings = Settings(
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        parallel_workers=0,
        model_repository_root=folder,
    )
    await MLServer(settings).start([])


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:4]), sys.argv[4]))
