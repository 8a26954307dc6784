"""The four networks of the training benchmark in PyTorch, over one joint table of embeddings.

Shapes in comments: B rows of a batch, F id features, D dimension, N numbers.
"""
import torch
from torch import nn

SHAPES = {
    "dnn": {"deep": (400, 400, 400)},
    "deepfm": {"deep": (400, 400, 400)},
    "dcn-v2": {"deep": (500, 500, 500), "cross": 3},
    "dlrm": {"deep": (512, 256), "bottom": (512, 256)},
}


def mlp(widths):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class Head(nn.Module):
    """Everything behind the look-up: numbers (B, N) and embeddings (B, F, width) to logits (B)."""

    def __init__(self, shape, fields, dim, numbers):
        super().__init__()
        spec = SHAPES[shape]
        self.shape = shape
        inputs = fields * dim + numbers
        if shape == "deepfm":
            self.linear = nn.Linear(numbers, 1)
        if shape == "dlrm":
            self.bottom = mlp((numbers, *spec["bottom"], dim))
            self.register_buffer("pairs", torch.triu_indices(fields + 1, fields + 1, 1), persistent=False)
            inputs = dim + (fields + 1) * fields // 2
        if shape == "dcn-v2":
            self.cross = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(spec["cross"]))
        self.deep = mlp((inputs, *spec["deep"]))
        self.out = nn.Linear(spec["deep"][-1] + (inputs if shape == "dcn-v2" else 0), 1)

    def forward(self, numbers, embeddings):
        if self.shape == "dlrm":
            bottom = self.bottom(numbers)
            vectors = torch.cat([bottom.unsqueeze(1).to(embeddings.dtype), embeddings], 1)
            dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
            return self.out(self.deep(torch.cat([bottom, dots], 1))).squeeze(1)
        logit = 0.0
        if self.shape == "deepfm":  # the last column of a row is its first-order weight
            logit = embeddings[..., -1].sum(1) + self.linear(numbers).squeeze(1)
            embeddings = embeddings[..., :-1]
            logit = logit + 0.5 * (embeddings.sum(1).square() - embeddings.square().sum(1)).sum(1)
        x = torch.cat([embeddings.flatten(1), numbers], 1)
        if self.shape == "dcn-v2":
            crossed = x
            for layer in self.cross:
                crossed = torch.addcmul(crossed, x, layer(crossed))
            return self.out(torch.cat([crossed, self.deep(x)], 1)).squeeze(1)
        return logit + self.out(self.deep(x)).squeeze(1)


def row_width(shape, dim):
    return dim + (shape == "deepfm")
