"""The CPU half of vault-ml: from a recording event in Kafka to labelled boxes in Kafka."""

__version__ = "0.1.0"
