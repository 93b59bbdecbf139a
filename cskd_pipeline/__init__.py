"""Distil vision transformers from a CNN teacher that runs once.

Stage 1 (`cskd_pipeline.labelling`) runs the teacher over augmented crops and stores its dense and global
targets; stage 2 (`cskd_pipeline.training`) replays the same crops and trains a student on the stored targets.
Importing this package does nothing: import the module that holds what you need.
"""

__version__ = "0.1.0"
