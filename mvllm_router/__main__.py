"""`python -m mvllm_router`."""

from mvllm_router.cli import main

if __name__ == "__main__":
    main("router")
