"""`python -m cskd_pipeline_cli`, for launchers that start a module."""

from .main import main

main()
