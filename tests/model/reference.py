"""A second implementation of a whole run, in NumPy and float64, from what the headers say: keys, random numbers, first values, id drop,
admission, transforms, forward, gradients, row-wise Adagrad, Adam, and scores with unknown ids. It shares no code with the program.

Usage: reference.py RUN.json    (written by reference_test.c)
Exit status 0: the scores agree within the bound; 1: they do not; 77: a Python module is missing (its name is printed).
"""
import json
import math
import struct
import sys

try:
    import numpy as np
    import xxhash
except ImportError as missing:
    print(missing)
    sys.exit(77)

MASK64 = (1 << 64) - 1
MASK32 = (1 << 32) - 1
PLACE_FIRST_VALUE, PLACE_ID_DROP, PLACE_TOWER = 1, 2, 3


# --- base/random.h, base/hash.h ---

def philox4x32(counter, key):
    """Philox4x32-10; Salmon, Moraes, Dror, Shaw, SC 2011, section 3.3."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        high_low_0 = 0xD2511F53 * a
        high_low_1 = 0xCD9E8D57 * c
        a, b, c, d = (high_low_1 >> 32) ^ b ^ k, high_low_1 & MASK32, (high_low_0 >> 32) ^ d ^ m, high_low_0 & MASK32
        k = (k + 0x9E3779B9) & MASK32
        m = (m + 0xBB67AE85) & MASK32
    return a, b, c, d


def split_mix(x):
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def random_words(seed, place, epoch, number, index):
    key = seed ^ split_mix(place << 32 | epoch)
    return philox4x32((number & MASK32, number >> 32, index, 0), (key & MASK32, key >> 32))


def unit(word):
    return (word >> 8) * 2.0**-24


def uniform(seed, place, number, count):
    """count values in [-1, 1): element i is word i mod 4 of draw i / 4."""
    values = [2 * unit(word) - 1 for draw in range((count + 3) // 4) for word in random_words(seed, place, 0, number, draw)]
    return np.array(values[:count])


def xxh3(text, seed=0):
    return xxhash.xxh3_64_intdigest(text if isinstance(text, bytes) else text.encode(), seed=seed)


# --- the log: the schema of fixture.c, written a second time ---

IDS = [  # name, side, column, the feature whose rows it uses, most values or None
    ("user", "context", 2, "user", None),
    ("tags", "context", 3, "tags", 3),
    ("item", "candidate", 5, "item", None),
    ("likes", "context", 6, "item", 4),
]
ATTENDED, ATTENDED_OF, ATTENDED_MOST = "alike", "item", 4  # a history of clicked items, pooled by attention, where the run asks for it
VECTORS = [("item_text", "candidate", 5, None), ("likes_text", "context", 6, 4)]
NUMBERS = [("age", "context", 4), ("price", "candidate", 7), ("spread", "candidate", 8)]


def of_side(features):
    return [f for side in ("context", "candidate") for f in features if f[1] == side]


def tokens(text, most):
    return [text] if most is None else [t for t in text.split(",") if t][-most:]


def bucket(value):
    """A number as an id: 3 Idiots' transform of Criteo's counts (2014), with the logarithm's buckets in a range of their own."""
    if math.isnan(value):
        return -2**31
    return 1000 + math.floor(math.log(value)**2) if value > 2 else max(math.floor(value), -1000)


class Log:
    def __init__(self, path, before=None):
        """before: a log whose rows, all of them, are the histories of this one's."""
        with open(path) as lines:
            rows = [line.rstrip("\n").split("\t") for line in lines]
        self.rows = len(rows)
        self.labels = np.array([float(r[0]) for r in rows])
        self.weights = np.array([float(np.float32(r[1])) for r in rows])
        self.ids = {name: [[xxh3(t, xxh3(owner)) for t in tokens(r[column], most)] for r in rows]
                    for name, _, column, owner, most in IDS}
        self.vectors = {name: [tokens(r[column], most) for r in rows] for name, _, column, most in VECTORS}
        self.numbers = {name: np.array([float(np.float32(r[column])) if r[column] else np.nan for r in rows])
                        for name, _, column in NUMBERS}
        self.units, self.liked = [r[2] for r in rows], dict(before.liked) if before else {}
        self.ids[ATTENDED] = []
        for unit, item, label in zip(self.units, self.ids[ATTENDED_OF], self.labels):
            self.ids[ATTENDED].append(self.liked.get(unit, [])[-ATTENDED_MOST:])
            if label == 1 and before is None:
                self.liked[unit] = self.liked.get(unit, []) + item
        for name, values in self.numbers.items():
            salt = xxh3(name + "#bucket")
            self.ids[name + "#bucket"] = [[xxh3(struct.pack("<i", bucket(v)), salt)] for v in values]


# --- embedding_store/store.h ---

class Rows:
    """One table of trained rows. Row-wise Adagrad: Duchi et al. 2011 with one accumulator a row, of the mean squared gradient."""

    def __init__(self, run, dim):
        self.run, self.dim = run, dim
        self.values, self.accumulator, self.counts = {}, {}, {}

    def add(self, key, values):
        self.values[key] = values
        self.accumulator[key] = self.run["initial_accumulator"]

    def admit(self, occurrences):
        """Counts a batch; a key has a row where the count before the batch reached min_count."""
        least = self.run["min_count"]
        for key in set(occurrences):
            if key not in self.values and (least <= 1 or self.counts.get(key, 0) >= least):
                self.add(key, uniform(self.run["seed"], PLACE_FIRST_VALUE, key, self.dim) * self.run["first_value_scale"])
        for key in occurrences:
            self.counts[key] = self.counts.get(key, 0) + 1

    def step(self, gradients, rate):
        for key, gradient in gradients.items():
            self.accumulator[key] += np.mean(gradient**2)
            self.values[key] = self.values[key] - rate / np.sqrt(self.accumulator[key]) * gradient


# --- model/model.h, tower/tower.h ---

class Model:
    def __init__(self, run):
        self.run = run
        self.dim = 1 if run["model"] == "lr" else run["dim"]
        self.of_fields = run["model"] in ("fm", "deepfm", "dlrm")
        self.of_pairs = run["model"] in ("fm", "deepfm")  # the last of a field's dim columns is its weight, the others make products
        self.factors = self.dim - 1 if self.of_pairs else self.dim
        self.adapter = self.dim if self.of_fields or run["model"] == "lr" else run["adapter"]
        self.rows = Rows(run, self.dim)
        self.buckets = [(n + "#bucket", side, None, n + "#bucket", None) for n, side, _ in NUMBERS] if run["buckets"] else []
        self.attends = run["attention"]
        self.ids = IDS + ([(ATTENDED, "candidate", None, ATTENDED_OF, ATTENDED_MOST)] if self.attends else []) + self.buckets
        vectors = np.load(run["vectors"])
        with open(run["vector_ids"]) as ids:
            self.vectors = dict(zip(ids.read().split(), vectors.astype(float)))
        self.raw_dim = vectors.shape[1]
        self.moments = {name: [] for name, _, _ in NUMBERS}  # all transformed values so far
        self.counts, self.prior = {}, [0, 0]  # impressions and clicks by key, in earlier batches of the epoch; rows and clicks of all
        self.place()
        self.make_weights()

    def place(self):
        """Columns of x: context, then candidate; in each ids, buckets, vectors, numbers."""
        self.columns, at = {}, 0
        for side in ("context", "candidate"):
            for features, width in ((self.ids, self.dim), (VECTORS, self.adapter), (NUMBERS, 2 if self.run["missing_flag"] else 1)):
                for feature in features:
                    if feature[1] == side:
                        self.columns[feature[0]] = slice(at, at + width)
                        at += width
            for feature in self.ids if self.run["target_stats"] else []:
                if feature[1] == side:
                    self.columns["stats " + feature[0]] = slice(at, at + 1)
                    at += 1
        self.width = at

    def make_weights(self):
        self.weights, self.limits = {}, {}
        for name, _, _, _ in of_side(VECTORS):
            if self.run["hidden"]:
                self.dense("vector." + name + ".hidden", self.raw_dim, self.run["hidden"], relu=True)
            self.dense("vector." + name, self.run["hidden"] or self.raw_dim, self.adapter, relu=False)
        inputs = 0
        self.cross = ["cross.%d" % i for i in range(self.run["cross_layers"])]
        self.rank = self.run["cross_rank"]
        for name in self.cross:
            if self.rank:
                self.dense(name.replace("cross", "cross_inner"), self.width, self.rank, relu=False)
                del self.weights[name.replace("cross", "cross_inner") + ".bias"]
            self.dense(name, self.rank or self.width, self.width, relu=False)
            inputs = self.width
        self.deep, width = ["deep.%d" % i for i in range(len(self.run["deep"]))], self.width
        places = [self.columns[f[0]] for side in ("context", "candidate") for features in (self.ids, VECTORS) for f in features if f[1] == side]
        self.fields = [slice(place.start, place.start + self.factors) for place in places]
        in_field = np.zeros(self.width, bool)
        for field in self.fields:
            in_field[field] = True
        self.rest = np.flatnonzero(~in_field)
        self.bottom = []
        if self.run["model"] == "dlrm":
            below, widths = len(self.rest), self.run["bottom"] + [self.dim]
            self.bottom = ["bottom.%d" % i for i in range(len(widths))]
            for name, out in zip(self.bottom, widths):
                self.dense(name, below, out, relu=True)
                below = out
            vectors = len(self.fields) + 1
            width = self.dim + vectors * (vectors - 1) // 2
        for name, out in zip(self.deep, self.run["deep"]):
            self.dense(name, width, out, relu=True)
            width = out
        if self.deep:
            inputs += width
        if self.of_pairs:  # x, the products of pairs, deep; the weights of products and of first-order columns stay 1
            inputs += self.width + self.factors
        self.dense("head", inputs if inputs else self.width, 1, relu=False)
        self.frozen = np.zeros_like(self.weights["head.weight"], bool)
        if self.of_pairs:
            self.frozen[self.width : self.width + self.factors] = True
            self.frozen[[place.stop - 1 for place in places]] = True
            self.weights["head.weight"][self.frozen] = 1.0
        if self.run["model"] == "lr":  # ids and vectors enter the sum as they are
            for name in [f[0] for f in self.ids + VECTORS]:
                self.frozen[self.columns[name]] = True
            self.weights["head.weight"][self.frozen] = 1.0
        self.m = {name: np.zeros_like(w) for name, w in self.weights.items()}
        self.v = {name: np.zeros_like(w) for name, w in self.weights.items()}
        self.average = dict(self.weights)
        self.t = self.trained = 0

    def dense(self, name, rows, columns, relu):
        """He-uniform before a ReLU, else Glorot-uniform; biases 0."""
        limit = np.sqrt(6.0 / rows) if relu else np.sqrt(6.0 / (rows + columns))
        first = uniform(self.run["seed"], PLACE_TOWER, xxh3(name + ".weight"), rows * columns) * limit
        self.weights[name + ".weight"] = first.reshape(rows, columns)
        self.weights[name + ".bias"] = np.zeros(columns)

    # --- the first input ---

    def pooled_rows(self, keys_of_row):
        """Means of the rows' values; a key is a number or ("rare", feature); what has no row reads zeros."""
        zeros = np.zeros(self.dim)
        return np.array([np.mean([self.rows.values.get(k, zeros) for k in keys], axis=0) if keys else zeros for keys in keys_of_row])

    def attention(self, query, keys):
        """Rows of the keys, weights, query: softmax of <q, k> / sqrt(c), of the first c floats (Vaswani et al. 2017, eq. 1)."""
        zeros = np.zeros(self.dim)
        q, k = self.rows.values.get(query, zeros)[: self.factors], np.array([self.rows.values.get(key, zeros) for key in keys])
        e = np.exp(k[:, : self.factors] @ q / np.sqrt(self.factors))
        return k, e / e.sum(), q

    def attended(self, keys):
        out = np.zeros((len(keys[ATTENDED]), self.dim))
        for r, row in enumerate(keys[ATTENDED]):
            if row:
                k, a, _ = self.attention(keys[ATTENDED_OF][r][0], row)
                out[r] = a @ k
        return out

    def attention_back(self, keys, d_x, of_rows):
        """By the Jacobian of the softmax, written out: d a_i / d s_j = a_i (1 if i = j else 0) - a_i a_j."""
        for r, row in enumerate(keys[ATTENDED]):
            if not row:
                continue
            k, a, q = self.attention(keys[ATTENDED_OF][r][0], row)
            g = d_x[r, self.columns[ATTENDED]].copy()
            d_s = (np.diag(a) - np.outer(a, a)) @ (k @ g) / np.sqrt(self.factors)
            d_x[r, self.columns[ATTENDED_OF]][: self.factors] += d_s @ k[:, : self.factors]
            for key, weight, slope in zip(row, a, d_s):
                d_k = weight * g
                d_k[: self.factors] += slope * q
                of_rows[key] = of_rows.get(key, 0) + d_k

    def raw_vectors(self, log, name, chosen):
        zeros = np.zeros(self.raw_dim)
        ids = [log.vectors[name][r] for r in chosen]
        return np.array([np.mean([self.vectors.get(i, zeros) for i in row], axis=0) if row else zeros for row in ids])

    def transformed(self, log, name, chosen):
        raw = log.numbers[name][chosen]
        return np.sign(raw) * np.log1p(np.abs(raw))

    def learn_numbers(self, log, chosen):
        for name in self.moments:
            values = self.transformed(log, name, chosen)
            self.moments[name].extend(values[~np.isnan(values)])

    def target_stats(self, log, name, chosen, dropped):
        n = np.array([0 if drop else sum(self.counts.get(k, (0, 0))[0] for k in log.ids[name][r]) for r, drop in zip(chosen, dropped)])
        c = np.array([0 if drop else sum(self.counts.get(k, (0, 0))[1] for k in log.ids[name][r]) for r, drop in zip(chosen, dropped)])
        p, a = (self.prior[1] + 0.5) / (self.prior[0] + 1), self.run["target_smoothing"]
        return (np.log1p(c / (a * p)) - np.log1p((n - c) / (a * (1 - p))))[:, None]

    def count_labels(self, log, chosen):
        for r in chosen:
            for feature in self.ids:
                for k in log.ids[feature[0]][r]:
                    n, c = self.counts.get(k, (0, 0))
                    self.counts[k] = n + 1, c + log.labels[r]
            self.prior = [self.prior[0] + 1, self.prior[1] + log.labels[r]]

    def first_input(self, log, chosen, keys, dropped):
        x = np.zeros((len(chosen), self.width))
        raw = {}
        for name, _, _, _, _ in self.ids:
            x[:, self.columns[name]] = self.attended(keys) if name == ATTENDED else self.pooled_rows(keys[name])
            if self.run["target_stats"]:
                x[:, self.columns["stats " + name]] = self.target_stats(log, name, chosen, dropped[name])
        for name, _, _, _ in VECTORS:
            raw[name] = self.layers(["vector.%s.hidden" % name] if self.run["hidden"] else [], self.raw_vectors(log, name, chosen))
            x[:, self.columns[name]] = raw[name][-1] @ self.weights["vector.%s.weight" % name] + self.weights["vector.%s.bias" % name]
        for name, _, _ in NUMBERS:
            values, seen = self.transformed(log, name, chosen), np.array(self.moments[name])
            at = self.columns[name].start
            x[:, at] = np.where(np.isnan(values), 0, (values - seen.mean()) / seen.std())
            if self.run["missing_flag"]:
                x[:, at + 1] = np.isnan(values)
        return x, raw

    # --- forward and backward ---

    def layers(self, names, x):
        """Outputs of ReLU layers, the input first."""
        hidden = [x]
        for name in names:
            hidden.append(np.maximum(hidden[-1] @ self.weights[name + ".weight"] + self.weights[name + ".bias"], 0))
        return hidden

    def layers_back(self, names, hidden, d, g):
        """Gradient of the input."""
        for i in reversed(range(len(names))):
            d = d * (hidden[i + 1] > 0)
            g[names[i] + ".weight"], g[names[i] + ".bias"] = hidden[i].T @ d, d.sum(axis=0)
            d = d @ self.weights[names[i] + ".weight"].T
        return d

    def inner(self, name, x):
        """What a cross layer's matrix reads: all, or a narrow product (Wang et al. 2021, eq. 2)."""
        return x @ self.weights[name.replace("cross", "cross_inner") + ".weight"] if self.rank else x

    def forward(self, x):
        w = self.weights
        crosses, below, vectors, first = [x], [], [], x
        for name in self.cross:
            crosses.append(x * (self.inner(name, crosses[-1]) @ w[name + ".weight"] + w[name + ".bias"]) + crosses[-1])
        if self.run["model"] == "dlrm":
            below = self.layers(self.bottom, x[:, self.rest])
            vectors = [below[-1]] + [x[:, field] for field in self.fields]
            first = np.concatenate([below[-1]] + [np.sum(vectors[i] * vectors[j], axis=1)[:, None]
                                                  for i in range(len(vectors)) for j in range(i)], axis=1)
        hidden = self.layers(self.deep, first)
        tops = ([crosses[-1]] if self.cross else []) + ([hidden[-1]] if self.deep else [])
        if self.of_pairs:  # Rendle 2010, eq. 5, before the sum over f
            v = [x[:, field] for field in self.fields]
            tops = [x, (sum(v) ** 2 - sum(f**2 for f in v)) / 2] + tops
        top = np.concatenate(tops, axis=1) if tops else x
        return (top @ w["head.weight"] + w["head.bias"])[:, 0], (x, crosses, hidden, top, below, vectors)

    def backward(self, state, d_logit):
        """Gradients of the weights and of x."""
        w, g = self.weights, {}
        x, crosses, hidden, top, below, vectors = state
        d_logit = d_logit[:, None]
        g["head.weight"], g["head.bias"] = top.T @ d_logit, d_logit.sum(axis=0)
        d_top = d_logit @ w["head.weight"].T
        if self.run["model"] == "lr":
            return g, d_top
        d_x, at = np.zeros_like(x), 0
        if self.of_pairs:
            at = self.width + self.factors
            d_x += d_top[:, : self.width]
            total = sum(x[:, field] for field in self.fields)
            for field in self.fields:
                d_x[:, field] += d_top[:, self.width : at] * (total - x[:, field])
        if self.cross:
            d, at = d_top[:, : self.width], self.width
            for i in reversed(range(len(self.cross))):
                name = self.cross[i]
                read = self.inner(name, crosses[i])
                d_product = d * x
                d_x += d * (read @ w[name + ".weight"] + w[name + ".bias"])
                g[name + ".weight"], g[name + ".bias"] = read.T @ d_product, d_product.sum(axis=0)
                d_read = d_product @ w[name + ".weight"].T
                if self.rank:
                    narrow = name.replace("cross", "cross_inner") + ".weight"
                    g[narrow] = crosses[i].T @ d_read
                    d_read = d_read @ w[narrow].T
                d = d + d_read
            d_x += d
        d = self.layers_back(self.deep, hidden, d_top[:, at:], g)
        if self.run["model"] == "dlrm":
            d_vectors, at = [d[:, : self.dim]] + [np.zeros_like(v) for v in vectors[1:]], self.dim
            for i in range(len(vectors)):
                for j in range(i):
                    d_vectors[i] = d_vectors[i] + d[:, at : at + 1] * vectors[j]
                    d_vectors[j] = d_vectors[j] + d[:, at : at + 1] * vectors[i]
                    at += 1
            for field, d_field in zip(self.fields, d_vectors[1:]):
                d_x[:, field] += d_field
            d_x[:, self.rest] += self.layers_back(self.bottom, below, d_vectors[0], g)
        elif self.deep:
            d_x += d
        return g, d_x

    def adam(self, gradients, left):
        """Kingma and Ba, arXiv 1412.6980, algorithm 1."""
        beta1, beta2 = self.run["beta1"], self.run["beta2"]
        self.t += 1
        for name, g in gradients.items():
            if name == "head.weight":
                g = np.where(self.frozen, 0, g)
            self.m[name] = beta1 * self.m[name] + (1 - beta1) * g
            self.v[name] = beta2 * self.v[name] + (1 - beta2) * g**2
            m, v = self.m[name] / (1 - beta1**self.t), self.v[name] / (1 - beta2**self.t)
            self.weights[name] = self.weights[name] - left * self.run["learning_rate"] * m / (np.sqrt(v) + self.run["epsilon"])
            power = self.run["average_power"]  # Shamir and Zhang 2013; 0 = none
            share = (1 + power) / (self.t + power) if power > 0 else 1
            self.average[name] = self.average[name] + share * (self.weights[name] - self.average[name])

    # --- a step, a score ---

    def training_keys(self, log, epoch, chosen):
        """Which row each occurrence reads and trains."""
        occurrences = [k for name, _, _, _, _ in self.ids for r in chosen for k in log.ids[name][r]]
        self.rows.admit(occurrences)
        keys, self.dropped = {}, {}
        for name, _, _, owner, _ in self.ids:
            rare, low_half, keys[name], self.dropped[name] = ("rare", owner), xxh3(owner) & MASK32, [], []
            for r in chosen:
                draw = random_words(self.run["seed"], PLACE_ID_DROP, epoch, r, low_half)[0]
                dropped = unit(draw) < self.run["id_drop"]
                self.dropped[name].append(dropped)
                row = [rare if dropped or k not in self.rows.values else k for k in log.ids[name][r]]
                if rare in row and rare not in self.rows.values:
                    self.rows.add(rare, np.zeros(self.dim))
                keys[name].append(row)
        return keys

    def train(self, log, epoch, chosen):
        keys = self.training_keys(log, epoch, chosen)
        self.learn_numbers(log, chosen)
        x, raw = self.first_input(log, chosen, keys, self.dropped)
        logits, state = self.forward(x)
        d_logit = (1 / (1 + np.exp(-logits)) - log.labels[chosen]) * log.weights[chosen]  # of the summed loss
        gradients, d_x = self.backward(state, d_logit)
        for name, _, _, _ in VECTORS:
            d = d_x[:, self.columns[name]]
            last = "vector.%s" % name
            gradients[last + ".weight"], gradients[last + ".bias"] = raw[name][-1].T @ d, d.sum(axis=0)
            if self.run["hidden"]:
                self.layers_back([last + ".hidden"], raw[name], d @ self.weights[last + ".weight"].T, gradients)
        of_rows = {}
        if self.attends:
            self.attention_back(keys, d_x, of_rows)
        for name, _, _, _, _ in self.ids:
            for r, row in enumerate(keys[name]):
                for k in row if name != ATTENDED else []:
                    of_rows[k] = of_rows.get(k, 0) + d_x[r, self.columns[name]] / len(row)
        left = max(0.0, 1 - self.trained / self.run["schedule_rows"]) if self.run["schedule_rows"] > 0 else 1.0
        self.trained += len(chosen)
        self.adam(gradients, left)
        self.rows.step(of_rows, left * self.run["embedding_learning_rate"])
        self.count_labels(log, chosen)
        return logits

    def score(self, log):
        self.weights = self.average
        chosen = list(range(log.rows))
        keys = {name: [[k if k in self.rows.values else ("rare", owner) for k in log.ids[name][r]] for r in chosen]
                for name, _, _, owner, _ in self.ids}
        dropped = {feature[0]: [False] * log.rows for feature in self.ids}
        return self.forward(self.first_input(log, chosen, keys, dropped)[0])[0]


def largest_difference(what, ours, path, bound):
    theirs = np.loadtxt(path)
    if theirs.shape != ours.shape:
        print("%s: %s values instead of %s" % (what, theirs.shape, ours.shape))
        return False
    difference = np.abs(theirs - ours)
    worst = int(np.argmax(difference))
    print("%s: largest difference %.2e (row %d: %.8f, NumPy %.8f), bound %.0e, spread %.2f" %
          (what, difference[worst], worst, theirs[worst], ours[worst], bound, ours.std()))
    return bool(difference[worst] <= bound)


def main():
    with open(sys.argv[1]) as file:
        run = json.load(file)
    model, log = Model(run), Log(run["train"])
    progressive = []
    for epoch in range(run["epochs"]):
        model.counts = {}  # counted anew in each epoch
        for first in range(0, log.rows, run["batch_rows"]):
            chosen = list(range(first, min(first + run["batch_rows"], log.rows)))
            logits = model.train(log, epoch, chosen)
            progressive.append(np.sum(log.weights[chosen] * (np.logaddexp(0, logits) - log.labels[chosen] * logits)))
    rare = sum(1 for key in model.rows.values if isinstance(key, tuple))
    print("%s: %d steps, %d rows (%d rare), %d keys" % (run["model"], model.t, len(model.rows.values), rare, len(model.rows.counts)))
    log_loss = sum(progressive) / (run["epochs"] * log.weights.sum())
    same = abs(log_loss - run["progressive_log_loss"]) <= 1e-6
    print("progressive log loss %.8f, NumPy %.8f" % (run["progressive_log_loss"], log_loss))
    test = Log(run["test"], before=log)
    unknown = sum(k not in model.rows.values for feature in model.ids for row in test.ids[feature[0]] for k in row)
    print("test: %d rows, %d occurrences of ids without a row" % (test.rows, unknown))
    logits = model.score(test)
    same &= largest_difference("logits", logits, run["logits"], run["bound"])
    same &= largest_difference("probabilities", 1 / (1 + np.exp(-logits)), run["probabilities"], run["bound"])
    same &= unknown > 0 and logits.std() > 0.1  # the test says something
    sys.exit(0 if same else 1)


main()
