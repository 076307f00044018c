"""What is measured: one command each (`make bench NAME=…`), results as JSON in bench/results/."""
