"""The paper's tables measured: `make bench-paper`, and `make bench-paper SETTING=full` on a GPU.

Each (task, seed, row) is a unit of its own with a fragment of JSON, so that what was interrupted goes on where it
stopped (`units`). The fragments become one file in bench/results (`merging`), and that file the tables and plots of
docs/results.md (`report`). Nothing there is typed by hand.

Source: Li et al. 2022, section 4, tables 2 and 3, figures 5 and 6.
"""
