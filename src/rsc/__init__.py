"""RSC: an AI research supercluster in software. Start reading at docs/follow-a-record.md."""

__version__ = "0.1.0"
