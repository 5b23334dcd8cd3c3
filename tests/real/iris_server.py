"""The KServe SDK's own model server with scikit-learn's iris, as `test_kserve.py` starts it.

Run with the SDK's flags: `iris_server.py --http_port=N --grpc_port=M`. It is what a user of KServe
would write, unchanged for the tests: whatever the SDK does on the wire, the agent has to carry.
"""

import kserve
from sklearn.datasets import load_iris
from sklearn.svm import SVC


class Iris(kserve.Model):
    """Species of iris flowers, in V1 and in the Open Inference Protocol (REST and gRPC)."""

    def __init__(self, name: str):
        super().__init__(name)
        features, species = load_iris(return_X_y=True)
        self.classifier = SVC().fit(features, species)
        self.ready = True

    async def get_input_types(self):
        return [{"name": "measurements", "datatype": "FP64", "shape": [-1, 4]}]

    async def get_output_types(self):
        return [{"name": "species", "datatype": "INT64", "shape": [-1]}]

    def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, kserve.InferRequest):
            classes = self.classifier.predict(payload.inputs[0].as_numpy())
            output = kserve.InferOutput("species", list(classes.shape), "INT64")
            output.set_data_from_numpy(classes, binary_data=False)
            return kserve.InferResponse(payload.id, self.name, [output])
        return {"predictions": self.classifier.predict(payload["instances"]).tolist()}


if __name__ == "__main__":
    kserve.ModelServer(workers=1).start([Iris("iris")])
