"""Stage 2: train a student on replayed crops and stored targets; stop and resume anywhere without a trace."""
