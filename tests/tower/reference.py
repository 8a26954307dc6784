"""An independent tower in NumPy float64: logits, gradients and one Adam step, compared with what the C program wrote.

Usage: reference.py FOLDER. FOLDER/tower.txt describes the tower line by line, FOLDER/NAME.f32 are little-endian floats:
x, raw, logit_gradients, logits, dx and, for each tensor, NAME.before, NAME.gradient, NAME.after, m.NAME.before, v.NAME.before.
Written from the formulas alone. In bf16 mode products round x, CROSS outputs, weights and gradients of products to bf16 (nearest even) and
DENSE outputs are rounded; sums stay in float64, so what differs is the order of fp32 sums and values that round to the other neighbour.
Exit 0: all within the bounds, which are printed beside the largest error found.
"""

import sys

import numpy as np


def bf16(a):
    bits = np.asarray(a, dtype=np.float32).view(np.uint32).astype(np.uint64)
    bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def same(a):
    return a


class Tower:
    def __init__(self, folder):
        self.folder = folder
        self.adapters, self.layers, self.units, self.value = [], [], [], {}
        with open(folder + "/tower.txt", encoding="ascii") as file:
            for line in file:
                word = line.split()
                if word[0] in ("adapter", "layer"):
                    getattr(self, word[0] + "s").append([word[1]] + [int(w) for w in word[2:]])
                elif word[0] == "unit":
                    self.units.append((int(word[1]), int(word[2])))
                else:
                    self.value[word[0]] = word[1]
        self.rows, self.width = int(self.value["rows"]), int(self.value["width"])
        self.round = bf16 if self.value["precision"] == "bf16" else same

    def read(self, name, *shape):
        return np.fromfile(self.folder + "/" + name + ".f32", dtype="<f4").astype(np.float64).reshape(shape)

    def weights(self):
        self.w = {}
        for name, _, n_in, _, n_out in self.adapters:
            self.w[name] = self.read(name + ".weight.before", n_in, n_out), self.read(name + ".bias.before", n_out)
        widths = [self.width]
        for layer in self.layers:
            name, out, inputs = layer[0], layer[2], layer[4:]
            total = sum(widths[i] for i in inputs)
            self.w[name] = self.read(name + ".weight.before", total, out), self.read(name + ".bias.before", out)
            widths.append(out)
        self.widths = widths

    def forward(self):
        r = self.round
        x = self.read("x", self.rows, self.width)
        self.raw = self.read("raw", self.rows, int(self.value["raw_width"]))
        for name, raw_column, n_in, column, n_out in self.adapters:
            a, bias = self.w[name]
            # x is fp32 memory
            x[:, column : column + n_out] = np.float32(self.raw[:, raw_column : raw_column + n_in] @ a + bias)
        slabs, self.z = [x], []
        for layer in self.layers:
            name, kind, relu, inputs = layer[0], layer[1], layer[3], layer[4:]
            weight, bias = self.w[name]
            if kind == 2:
                joined = np.concatenate([slabs[i] for i in inputs], axis=1)
                self.logits = joined @ weight + bias
                self.z.append(None)
                break
            z = r(slabs[inputs[0]]) @ r(weight) + bias
            self.z.append(z)
            if kind == 0:
                slabs.append(r(np.maximum(z, 0) if relu else z))
            else:
                slabs.append(slabs[0] * z + slabs[inputs[0]])
        self.slabs = slabs

    def backward(self, logit_gradients):
        r = self.round
        g = [np.zeros_like(s) for s in self.slabs]
        self.gradient = {}
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            name, kind, relu, inputs = layer[0], layer[1], layer[3], layer[4:]
            weight, _ = self.w[name]
            if kind == 2:
                joined = np.concatenate([self.slabs[i] for i in inputs], axis=1)
                dw = joined.T @ logit_gradients
                at = 0
                for i in inputs:
                    g[i] += logit_gradients @ weight[at : at + self.widths[i]].T
                    if i == 0:
                        for column, count in self.units:
                            dw[at + column : at + column + count] = 0
                    at += self.widths[i]
                self.gradient[name] = dw, logit_gradients.sum(axis=0)
                continue
            dy = g[index + 1]
            if kind == 0:
                dz = dy * (self.slabs[index + 1] > 0) if relu else dy
            else:
                dz = dy * self.slabs[0]
                g[0] += dy * self.z[index]
                g[inputs[0]] += dy
            self.gradient[name] = r(self.slabs[inputs[0]]).T @ r(dz), dz.sum(axis=0)
            g[inputs[0]] += r(dz) @ r(weight).T
        for name, raw_column, n_in, column, n_out in self.adapters:
            d = g[0][:, column : column + n_out]
            self.gradient[name] = self.raw[:, raw_column : raw_column + n_in].T @ d, d.sum(axis=0)
        self.dx = g[0]

    def adam(self, name, shape):
        """From the C program's own gradient: the rule alone is compared."""
        g, w = self.read(name + ".gradient", *shape), self.read(name + ".before", *shape)
        m, v = self.read("m." + name + ".before", *shape), self.read("v." + name + ".before", *shape)
        rate, b1, b2, epsilon = (float(self.value[k]) for k in ("rate", "beta1", "beta2", "epsilon"))
        t = int(self.value["step"]) + 1
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        return w - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)


def main():
    tower = Tower(sys.argv[1])
    tower.weights()
    tower.forward()
    outputs = tower.layers[-1][2]
    c = tower.read("logit_gradients", tower.rows, outputs)
    tower.backward(c)
    exact = tower.value["precision"] == "fp32"
    failed = []

    def check(what, found, expected, bound):
        scale = max(np.sqrt(np.mean(expected**2)), 1e-12)
        largest = np.max(np.abs(found - expected)) / scale
        typical = np.sqrt(np.mean((found - expected) ** 2)) / scale
        # A value that rounds to the other neighbour of two bf16 moves single results by up to 2^-8 of a term: typical is bounded tightly,
        # largest loosely.
        ok = np.all(np.isfinite(found)) and typical <= bound and largest <= (20 if exact else 60) * bound
        if not ok:
            failed.append(what)
        print(f"{'ok    ' if ok else 'FAILED'} {what}: error {typical:.2e} typical, {largest:.2e} largest, bound {bound:.0e} of rms {scale:.2e}")

    bound = 2e-6 if exact else 2e-4
    check("logits", tower.read("logits", tower.rows, outputs), tower.logits, bound)
    check("dx", tower.read("dx", tower.rows, tower.width), tower.dx, bound)
    for name, (dw, db) in tower.gradient.items():
        check(name + ".weight gradient", tower.read(name + ".weight.gradient", *dw.shape), dw, bound)
        check(name + ".bias gradient", tower.read(name + ".bias.gradient", *db.shape), db, bound)
        for part, shape in (("weight", dw.shape), ("bias", db.shape)):
            full = name + "." + part
            before = tower.read(full + ".before", *shape)
            step = tower.adam(full, shape) - before
            found = tower.read(full + ".after", *shape) - before
            # The new weight is rounded to fp32: an absolute error of half a unit of the last place of the weight.
            slack = np.abs(before) * 2.0**-23 + np.abs(step) * 2e-6 + 1e-12
            ok = bool(np.all(np.abs(found - step) <= slack))
            if not ok:
                failed.append(full + " Adam")
                print(f"FAILED {full} Adam: error {np.max(np.abs(found - step)):.2e}")
    if failed:
        print(len(failed), "failed:", ", ".join(failed))
    sys.exit(1 if failed else 0)


main()
