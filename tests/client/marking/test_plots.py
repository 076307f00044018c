"""Promises: the picture shows what was measured, and only that."""

from matplotlib.figure import Figure

from client.marking.plots import _draw_curves, _draw_losses, plot_report

CURVES = {"marked": [[6, 0.5], [12, 0.6], [18, 1.0]], "unseen_shadow": [[6, 0.5], [12, 0.55]], "negative": []}
HISTORY = [
    {"step": 6, "mark_loss": 1.0, "task_loss": 0.2, "matched": 0.4},
    {"step": 12, "mark_loss": 0.7, "task_loss": 0.1, "tuning_loss": 0.9, "matched": 0.6},
    {"step": 18, "mark_loss": 0.5, "task_loss": 0.05, "tuning_loss": 0.8, "matched": 0.7},
]


def drawn(draw):
    """What is labelled in the legend, with the numbers that were drawn; and the numbers without a label."""
    axes = Figure().subplots()
    draw(axes)
    lines = [(line.get_label(), [list(map(float, it)) for it in line.get_data()]) for line in axes.get_lines()]
    return {label: data for label, data in lines if not label.startswith("_")}, [
        data for label, data in lines if label.startswith("_")
    ]


def test_each_loss_that_was_measured_has_a_curve_and_no_other():
    labelled, rest = drawn(lambda axes: _draw_losses(axes, HISTORY))

    assert labelled == {
        "task": [[6, 12, 18], [0.2, 0.1, 0.05]],
        "mark": [[6, 12, 18], [1.0, 0.7, 0.5]],
        "R_DA: mark on tuned copies": [[12, 18], [0.9, 0.8]],
    }
    assert rest == []


def test_counts_are_joined_but_for_those_after_the_heads_own_steps():
    labelled, rest = drawn(lambda axes: _draw_curves(axes, CURVES, HISTORY))

    assert labelled["marked model"] == [[6, 12], [0.5, 0.6]]
    assert labelled["tuned copy, before R_DA sees it"] == [[6, 12], [0.5, 0.55]]
    assert "greatest negative control" not in labelled
    assert [[18], [1.0]] in rest
    assert [[6, 12, 18], [0.4, 0.6, 0.7]] in rest


def test_a_report_is_drawn_with_its_history_and_without(tmp_path):
    report = {"triggers": 100, "matched": {"clean": 50, "marked": 99}, "test_accuracy": {"clean": 0.9, "marked": 0.91}}

    sizes = []
    for number, embedding in enumerate(({}, {"curves": CURVES}, {"curves": CURVES, "history": HISTORY})):
        plot_report(report | {"embedding": embedding}, tmp_path / f"{number}.png")
        content = (tmp_path / f"{number}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        sizes.append(int.from_bytes(content[16:20], "big"))

    assert sizes == [sizes[0], 2 * sizes[0], 3 * sizes[0]]
