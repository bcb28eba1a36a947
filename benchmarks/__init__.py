"""Benchmarks beside SciPy, jaxopt, optax, optimistix and slsqp-jax: `python -m benchmarks`."""
