"""Many cases' notes in a line for each kind."""

from storage.cases.notes import summarise_notes


def test_a_line_for_each_kind_whatever_the_numbers() -> None:
    notes = {
        "A": ("ignored X.nii", "background stored as 0: flair -1.5"),
        "B": ("background stored as 0: flair -1.7, t1 -2", "labels rounded to whole numbers: label by up to 0.01"),
        "C": ("background stored as 0: t2 -1024",),
        "D": (),
    }
    assert summarise_notes(notes) == (
        "background stored as 0: 3 cases, such as A (flair -1.5)",
        "labels rounded to whole numbers: 1 case, B (label by up to 0.01)",
    )
