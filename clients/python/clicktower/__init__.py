"""Client of a Clicktower server: rows in, click probabilities out."""

from .client import Answer, Client, ScoreError

__all__ = ["Answer", "Client", "ScoreError"]
__version__ = "0.1.0"
