"""The model half of vault-ml: fetch, export and publish models, and run a Triton that serves them."""
