"""What Triton's Python backend runs as each model of `test_triton.py`: twice the numbers, their sum
as text and, in the model `mean`, the mean of all of them, which has no batch dimension.

`TRITON_PACKAGES` names the folder with numpy, as the backend takes no path from outside.
"""

import os
import sys

sys.path.append(os.environ["TRITON_PACKAGES"])

import numpy as np
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, arguments):
        self.has_mean = arguments["model_name"] == "mean"

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        numbers = triton.get_input_tensor_by_name(request, "x").as_numpy()
        sums = [[str(row.sum()).encode()] for row in numbers]
        outputs = [
            triton.Tensor("twice", numbers * 2),
            triton.Tensor("sum", np.array(sums, dtype=object)),
        ]
        if self.has_mean:
            outputs.append(triton.Tensor("mean", numbers.mean(keepdims=True).reshape(1)))
        return triton.InferenceResponse(output_tensors=outputs)
