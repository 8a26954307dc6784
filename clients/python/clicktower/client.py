"""The client. Values are encoded by what the model says of its features, so a column of integers is numbers or ids as the model has it."""

import dataclasses
from collections.abc import Mapping

import grpc
import numpy as np

from . import clicktower_pb2 as api

_SERVICE = "/clicktower.v1.Scorer/"
_EVENT_FIELDS = {field.name for field in api.FeedbackEvent.DESCRIPTOR.fields}


class ScoreError(Exception):
    """The server refused or could not be reached. `code`: a grpc.StatusCode; the message is the server's and names the field."""

    def __init__(self, code, message):
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


@dataclasses.dataclass
class Answer:
    """What the server said. Arrays are (candidates,), float32, in the order of the candidates."""

    outputs: dict  # name -> probabilities
    logits: dict  # name -> logits; empty unless they were asked for
    model: str
    model_version: str
    request_id: str  # the caller's; where there was none and the server logs exposures, one that it made: feedback needs it
    experiment: str  # "" = the request took part in none, and so are the two below
    arm: str  # whose model gave the scores
    assigned: str  # how the unit came to it: "bucket", "ramp", "holdout", "forced", "outside", "fallback" or "none" (clicktower.proto)


class Client:
    """A connection to one server; may be used by several threads.

    target       HOST:PORT of gRPC
    model        which of the server's models; "" = its first
    timeout      seconds for each call, unless a call says otherwise
    token        sent as `authorization: Bearer TOKEN`
    credentials  grpc.ChannelCredentials for TLS; None = no TLS
    options      of the gRPC channel
    """

    def __init__(self, target="127.0.0.1:8500", *, model="", timeout=1.0, token=None, credentials=None, options=()):
        self.model = model
        self.timeout = timeout
        self._metadata = [("authorization", f"Bearer {token}")] if token else None
        options = list(options)
        self._channel = (grpc.secure_channel(target, credentials, options=options) if credentials
                         else grpc.insecure_channel(target, options=options))
        self._score = self._channel.unary_unary(_SERVICE + "Score", api.ScoreRequest.SerializeToString, api.ScoreResponse.FromString)
        self._feedback = self._channel.unary_unary(_SERVICE + "Feedback", api.FeedbackRequest.SerializeToString,
                                                   api.FeedbackResponse.FromString)
        self._models = self._channel.unary_unary(_SERVICE + "Models", api.ModelsRequest.SerializeToString, api.ModelsResponse.FromString)
        self._features = {}  # model -> (versions, {name: Feature})

    def close(self):
        self._channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def models(self, *, timeout=None):
        """What the server has loaded: a list of clicktower.v1.Model, with name, version, features, outputs, ..."""
        return list(self._call(self._models, api.ModelsRequest(), timeout).models)

    def score(self, candidates, context=None, **options):
        """Probabilities of the model's first output: float32 (candidates,). Arguments as of `answer`."""
        return next(iter(self.answer(candidates, context, **options).outputs.values()))

    def feedback(self, events, *, timeout=None):
        """Says what was shown and what came of it; returns how many events were accepted: all of them, and they are on disk.

        events   dicts, at most 10,000, with
                   request_id   of the answer
                   candidate    its place in the request, from 0
                   event        "shown", "click", or a name of yours. What was shown needs a "shown"
                 and, where known,
                   position     where it was shown, from 1
                   value        what it is worth; left out = 1
                   event_id     so that it counts once, however often it is sent
                   time_ms      when it happened, milliseconds since 1970; left out = now

        Late, repeated and out of order is fine. Raises ScoreError where they were not accepted: send them again, unless the code is
        INVALID_ARGUMENT.
        """
        request = api.FeedbackRequest()
        for number, event in enumerate(events):
            unknown = set(event) - _EVENT_FIELDS
            if unknown:
                raise ValueError(f"event {number}: {sorted(unknown)} is none of {sorted(_EVENT_FIELDS)}")
            request.events.add(**{name: value for name, value in event.items() if value is not None})
        return self._call(self._feedback, request, timeout).accepted

    def answer(self, candidates, context=None, *, model=None, unit="", arm="", request_id="", logits=False, timeout=None):
        """Scores candidates.

        candidates   a list of dicts, one for each candidate; or a dict of columns (lists, NumPy arrays); or a pandas DataFrame. Where the
                     model needs nothing of the candidates, the number of them
        context      a dict of what holds for all candidates; any feature may stand here
        unit         whom the request is for, a str or an int; the running experiment chooses its arm, and so the model, unless the request names one
        arm          of the running experiment, where another system has chosen it
        request_id   comes back in the answer, and names the request in feedback
        logits       also return logits

        A number: int, float; None or NaN = missing. An id: str or int; None or NaN = the empty token. An id of several values: a list,
        oldest first unless the schema says otherwise. What the model does not use is left out. Raises ScoreError for what the server
        refuses, ValueError or TypeError, with feature and row, for values that can't be sent.
        """
        name = self.model if model is None else model
        if context is not None and not isinstance(context, Mapping):
            raise TypeError(f"context is {type(context).__name__}: a dict of features is wanted")
        versions, features = self._features_of(name, timeout)
        request = api.ScoreRequest(model=name, unit=str(unit), arm=arm, request_id=request_id, logits=logits)
        if isinstance(candidates, (int, np.integer)):
            request.candidate_count = int(candidates)
        else:
            columns, request.candidate_count = _columns(candidates)
            for column, values in columns.items():
                if column in features:
                    _encode(request.candidates.add(name=column), features[column], values)
        for column, value in (context or {}).items():
            if column in features:
                _encode(request.context.add(name=column), features[column], [value])
        response = self._call(self._score, request, timeout)
        if response.model_version not in versions:
            self._features.pop(name, None)  # another model has taken over: ask it what it needs
        return Answer(outputs={output.name: np.array(output.probabilities, dtype=np.float32) for output in response.outputs},
                      logits={output.name: np.array(output.logits, dtype=np.float32) for output in response.outputs if output.logits},
                      model=response.model, model_version=response.model_version, request_id=response.request_id,
                      experiment=response.experiment, arm=response.arm, assigned=response.assigned)

    def _features_of(self, name, timeout):
        if name not in self._features:
            response = self._call(self._models, api.ModelsRequest(), timeout)
            arms = {arm.model for arm in response.experiment.arms}  # nobody knows yet which arm will be seen: what any of them needs
            found = [model for model in response.models if model.name == name or (not name and model.name in arms)]
            if not name and not found:
                found = response.models[:1]
            if not found:
                raise ScoreError(grpc.StatusCode.NOT_FOUND, f'no model "{name}"; the server has {[model.name for model in response.models]}')
            features = {}
            for model in found:
                for feature in model.features:
                    features.setdefault(feature.name, feature)
            self._features[name] = {model.version for model in found}, features
        return self._features[name]

    def _call(self, method, request, timeout):
        try:
            return method(request, timeout=self.timeout if timeout is None else timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ScoreError(error.code(), error.details()) from None


def _columns(candidates):
    """{name: values} and the number of rows."""
    if isinstance(candidates, Mapping):
        columns = dict(candidates)
        for name, values in columns.items():
            if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
                raise TypeError(f"column '{name}' is {values!r}: a list or an array with a value for each candidate is wanted "
                                "(what holds for all of them belongs into the context; one candidate is a list of one dict)")
    elif hasattr(candidates, "columns") and hasattr(candidates, "iloc"):  # a DataFrame, without needing pandas
        columns = {str(name): candidates[name].to_numpy() for name in candidates.columns}
        if not columns:
            return {}, len(candidates)
    else:
        if isinstance(candidates, (str, bytes)) or not hasattr(candidates, "__iter__"):
            raise TypeError(f"candidates is {candidates!r}: a list of dicts, a dict of columns, a DataFrame or a number is wanted")
        rows = list(candidates)
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise TypeError(f"candidate {number} is {type(row).__name__}: a dict of features is wanted")
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}, len(rows)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns have different lengths: {lengths}")
    return columns, next(iter(lengths.values()), 0)


def _encode(column, feature, values):
    if feature.kind == "number":
        _encode_numbers(column, values)
    elif isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iu" and values.dtype != np.uint64:
        column.integers.extend(values.tolist())
    elif isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind == "U":
        column.tokens.extend(values.tolist())
    elif feature.max_values > 1 or any(_is_many(value) for value in values):
        lists = [[] if _is_missing(value) else list(value) if _is_many(value) else [value] for value in values]
        column.lengths.extend(len(several) for several in lists)
        _encode_ids(column, [(value, row) for row, several in enumerate(lists) for value in several])
    else:
        _encode_ids(column, [(value, row) for row, value in enumerate(values)])


def _encode_numbers(column, values):
    try:
        numbers = np.asarray([np.nan if value is None else value for value in values] if not isinstance(values, np.ndarray) or
                             values.dtype == object else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"feature '{column.name}' is a number: {error}") from None
    if numbers.ndim != 1:
        raise TypeError(f"feature '{column.name}' is a number, and has one value a row")
    missing = np.isnan(numbers)
    if missing.any():
        column.lengths.extend((~missing).astype(np.uint32).tolist())
        numbers = numbers[~missing]
    column.numbers.extend(numbers.tolist())


def _encode_ids(column, values):
    """values: (value, row), the row for messages."""
    if all(isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)) and -2**63 <= value < 2**63 for value, _ in values):
        column.integers.extend(int(value) for value, _ in values)
        return
    for value, row in values:
        try:
            column.tokens.append(_token(column.name, value, row))
        except UnicodeEncodeError as error:
            raise ValueError(f"feature '{column.name}', row {row}: {value!r} is no text: {error}") from None


def _token(name, value, row):
    if isinstance(value, str):
        return value
    if _is_missing(value):
        return ""
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))  # what pandas makes of integers where one is missing
    raise TypeError(f"feature '{name}', row {row}: {value!r} is no id: a str or an int is wanted")


def _is_missing(value):
    return value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)) or type(value).__name__ in ("NAType", "NaTType")


def _is_many(value):
    return isinstance(value, (list, tuple, np.ndarray))
