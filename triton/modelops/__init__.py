"""The server half of vault-ml: wraps, publishes and serves detector models that keep the contract."""
