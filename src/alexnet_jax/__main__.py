"""`python -m alexnet_jax COMMAND …`, the same as `alexnet-jax COMMAND …`."""

from alexnet_jax.cli.main import main

if __name__ == "__main__":
    main()
