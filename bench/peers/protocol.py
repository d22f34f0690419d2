"""How a Python peer answers. Reads lines, answers each with one:

    run TASK SIZE DTYPE REPEATS    seconds of one run
    check TASK FILE                the file's inputs computed on: the largest error of the results, relative to the largest
                                   magnitude of each that the file holds
    open TASK FILE                 loads a training's weights, inputs and configuration; answers "ok"
    losses TASK N                  what N steps give, from the file's weights on, as JSON
    about                          versions and the BLAS, as JSON

and, where something is wrong, with "error: ...".
"""

import json
import struct
import sys
import time

import numpy


def load_safetensors(path):
    """Metadata and float32 or int32 arrays of a safetensors file (8 bytes header length, JSON header, data)."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    metadata = header.pop("__metadata__", {})
    kinds = {"F32": numpy.float32, "I32": numpy.int32}
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        arrays[name] = numpy.frombuffer(data[begin:end], kinds[entry["dtype"]]).reshape(entry["shape"]).copy()
    return metadata, arrays


def blas():
    """The OpenBLAS that is mapped. The openmp build shares PyTorch's threads; the pthread build competes with them."""
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1] for line in maps if "/libopenblas" in line})


def worst_error(results, expected):
    worst = 0.0
    for name, want in expected.items():
        got = numpy.asarray(results[name], numpy.float64).reshape(want.shape)
        worst = max(worst, float(numpy.abs(got - want).max() / numpy.abs(want).max()))
    return worst


class Kernels:
    """Formulas: inputs_of(task, size) gives arrays, formulas[task] maps them to results."""

    def __init__(self, formulas, inputs_of, to_tensor, to_array):
        self.formulas, self.inputs_of, self.to_tensor, self.to_array = formulas, inputs_of, to_tensor, to_array
        self.kept = {}

    def run(self, task, size, repeats):
        if (task, size) not in self.kept:
            self.kept = {(task, size): self.inputs_of(task, size)}
        inputs = self.kept[task, size]
        start = time.perf_counter()
        for _ in range(repeats):
            results = self.formulas[task](inputs)
            del results
        return (time.perf_counter() - start) / repeats

    def check(self, task, path):
        _, arrays = load_safetensors(path)
        inputs = {name[3:]: self.to_tensor(value) for name, value in arrays.items() if name.startswith("in.")}
        expected = {name[4:]: value for name, value in arrays.items() if name.startswith("out.")}
        results = {name: self.to_array(value) for name, value in self.formulas[task](inputs).items()}
        return worst_error(results, expected)


def serve(kernels, trainings, about):
    """`trainings` makes one from a file: an object with restart() and step(), which gives a number or several."""
    opened = {}

    def answer(words):
        command, rest = words[0], words[1:]
        if command == "about":
            return json.dumps({**about(), "blas": blas()})
        if command == "open":
            opened[rest[0]] = trainings[rest[0]](rest[1])
            return "ok"
        if command == "check":
            return repr(kernels.check(*rest))
        if command == "losses":
            training = opened[rest[0]]
            training.restart()
            numbers = []
            for _ in range(int(rest[1])):
                value = training.step()
                numbers += [float(part) for part in value] if isinstance(value, (list, tuple)) else [float(value)]
            return json.dumps(numbers)
        task, size, _, repeats = rest
        if task not in opened:
            return f"{kernels.run(task, int(size), int(repeats)):.12f}"
        start = time.perf_counter()
        for _ in range(int(repeats)):
            opened[task].step()
        return f"{(time.perf_counter() - start) / int(repeats):.12f}"

    for line in sys.stdin:
        try:
            print(answer(line.split()), flush=True)
        except Exception as error:  # The harness is told, whatever it was.
            print(f"error: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
