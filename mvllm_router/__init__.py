"""One OpenAI-compatible address in front of every LLM server you have."""

__version__ = "0.1.0"
