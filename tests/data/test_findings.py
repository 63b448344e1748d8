import pytest

from segctl.data.findings import Finding, Kind, refusal, summarise


def test_findings_that_differ_in_names_and_numbers_are_one_kind():
    findings = [
        Finding("a", "the label of sample 'a' (x/a.png) holds the id 7 (3 pixels), wanted 0 to 2", "correct it"),
        Finding("b", "the label of sample 'b' (x/b.png) holds the id 99 (12 pixels), wanted 0 to 2", "correct it"),
        Finding("", "dataset.json is gone"),
    ]
    assert summarise(findings) == [
        Kind("the label of sample … … holds the id … …, wanted … to …", 2, "a", "correct it"),
        Kind("dataset.json is gone", 1, "", ""),
    ]


@pytest.mark.parametrize(("count", "more"), [(1, ""), (2, " (and 1 more problem; `--check` lists them)")])
def test_the_first_finding_is_refused_and_the_others_counted(count, more):
    error = refusal([Finding("a", "the first", "do this"), Finding("b", "the second")][:count])
    assert str(error) == f"the first{more}; do this"
