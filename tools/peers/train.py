"""Training speed of PyTorch on a log in Criteo's layout: rows/s with ids remapped and in memory, and end to end from the file.

Prints one JSON object a line, one for each variant:
  stock   fp32, nn.Embedding with sparse gradients, torch.optim.Adagrad for the table, fused Adam for the rest: what most people write
  bf16    the same under autocast to bf16
  tuned   bf16, row-wise Adagrad by hand on the rows of the batch (no sparse tensors), everything behind the look-up through torch.compile
"""
import argparse
import json
import statistics
import time

import numpy as np
import polars
import torch
from torch import nn

from models import SHAPES, Head, row_width

NUMBERS = [f"I{i}" for i in range(1, 14)]
IDS = [f"C{i}" for i in range(1, 27)]
LAYOUT = {"label": polars.Int8, **dict.fromkeys(NUMBERS, polars.Int32), **dict.fromkeys(IDS, polars.String)}
VARIANTS = ("stock", "bf16", "tuned")


def buckets(values):
    """Numbers as ids: floor(log(v)^2) above 2, small values and missing ones (NaN) ids of their own."""
    large = np.floor(np.log(np.maximum(values, 3)) ** 2) + 10
    return np.where(np.isnan(values), -100, np.where(values > 2, large, values)).astype(np.int64)


def read(path, flags_and_buckets):
    """The file as labels (n), numbers (n, 13 or 26) and raw ids (n, 26 or 39), float32 and int64."""
    frame = polars.read_csv(path, separator="\t", has_header=False, schema=LAYOUT, quote_char=None)
    raw = frame.select(polars.col(NUMBERS).cast(polars.Float64).fill_null(float("nan"))).to_numpy()
    ids = frame.select(polars.col(IDS).str.to_integer(base=16, strict=False).fill_null(-1)).to_numpy()
    missing = np.isnan(raw)
    numbers = np.log1p(np.clip(np.where(missing, 0, raw), 0, None))
    numbers = (numbers - numbers.mean(0)) / (numbers.std(0) + 1e-6)
    if flags_and_buckets:
        numbers = np.concatenate([numbers, missing], 1)
        ids = np.concatenate([ids, buckets(raw)], 1)
    return frame["label"].to_numpy().astype(np.float32), numbers.astype(np.float32), ids


def remap(ids):
    """Raw ids to rows 0 .. of one joint table, each feature with rows of its own; returns (ids, rows)."""
    rows, out = 0, np.empty(ids.shape, np.int64)
    for column in range(ids.shape[1]):
        values, out[:, column] = np.unique(ids[:, column], return_inverse=True)
        out[:, column] += rows
        rows += len(values)
    return out, rows


class RowwiseAdagrad:
    """One accumulator a row: a += mean(g^2), w -= lr g / sqrt(a), g summed over a row's places in the batch."""

    def __init__(self, weight, learning_rate=0.01, epsilon=1e-8):
        self.weight, self.learning_rate, self.epsilon = weight, learning_rate, epsilon
        self.sums = torch.zeros(weight.shape[0])

    @torch.no_grad()
    def step(self, ids, gradient):
        rows, places = torch.unique(ids, return_inverse=True)
        sums = torch.zeros(len(rows), gradient.shape[-1]).index_add_(0, places.flatten(), gradient.flatten(0, 1))
        squares = self.sums[rows] + sums.square().mean(1)
        self.sums[rows] = squares
        self.weight.index_add_(0, rows, sums * (-self.learning_rate / (squares.sqrt() + self.epsilon)).unsqueeze(1))


class Trainer:
    def __init__(self, shape, variant, rows, dim, fields, numbers):
        torch.manual_seed(1)
        self.tuned, self.bf16 = variant == "tuned", variant != "stock"
        width = row_width(shape, dim)
        self.table = nn.Embedding(rows, width, sparse=True, _weight=torch.empty(rows, width).uniform_(-0.01, 0.01))
        head = Head(shape, fields, dim, numbers)
        self.dense = torch.optim.Adam(head.parameters(), 1e-3, fused=True)
        self.head = torch.compile(head) if self.tuned else head
        if self.tuned:
            self.table.weight.requires_grad_(False)
            self.rows = RowwiseAdagrad(self.table.weight)
        else:
            self.rows = torch.optim.Adagrad(self.table.parameters(), 0.01)

    def step(self, labels, numbers, ids):
        embeddings = self.table(ids)
        if self.tuned:
            embeddings.requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits = self.head(numbers, embeddings)
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)
        loss.backward()
        self.dense.step()
        self.dense.zero_grad(set_to_none=True)
        if self.tuned:
            self.rows.step(ids, embeddings.grad)
        else:
            self.rows.step()
            self.rows.zero_grad(set_to_none=True)
        return loss


def batches_of(log, rows):
    parts = [torch.from_numpy(array).split(rows) for array in log]
    return list(zip(*parts))[:len(log[0]) // rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a log in Criteo's layout, plain or .gz")
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3, help="of each of three timed stretches (default %(default)s)")
    parser.add_argument("--full-inputs", action="store_true", help="also missing flags, and the numbers as buckets")
    parser.add_argument("variants", nargs="+", choices=VARIANTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    start = time.perf_counter()
    labels, numbers, raw_ids = read(options.data, options.full_inputs)
    read_seconds = time.perf_counter() - start
    ids, rows = remap(raw_ids)
    remap_seconds = time.perf_counter() - start - read_seconds
    batches = batches_of((labels, numbers, ids), options.batch)
    for variant in options.variants:
        trainer = Trainer(options.shape, variant, rows, options.dim, ids.shape[1], numbers.shape[1])
        for batch in batches[:4]:  # torch.compile works here
            trainer.step(*batch)
        start = time.perf_counter()
        for batch in batches:  # one epoch from cold rows, as a user's first
            loss = trainer.step(*batch)
        epoch_seconds = time.perf_counter() - start
        rates, at = [], 0
        for _ in range(3):
            done, start = 0, time.perf_counter()
            while (seconds := time.perf_counter() - start) < options.seconds:
                trainer.step(*batches[at % len(batches)])
                at, done = at + 1, done + options.batch
            rates.append(done / seconds)
        epoch_rows = len(batches) * options.batch
        print(json.dumps({"shape": options.shape, "variant": variant, "batch": options.batch, "threads": options.threads,
                          "torch": torch.__version__, "table_rows": rows, "rows_per_second": round(statistics.median(rates)),
                          "epoch_rows_per_second": round(epoch_rows / epoch_seconds),
                          "end_to_end_rows_per_second": round(epoch_rows / (epoch_seconds + (read_seconds + remap_seconds) * epoch_rows / len(labels))),
                          "read_seconds": round(read_seconds, 3), "remap_seconds": round(remap_seconds, 3),
                          "loss": round(loss.item(), 5)}), flush=True)


if __name__ == "__main__":
    main()
