from segctl.cli.output import out


def test_the_last_line_of_progress_is_said_once(capsys):
    with out.progress("packing") as progress:
        for done in (1, 2, 3, 3, 3):
            progress(done, 3)
    assert capsys.readouterr().err == "packing 3/3\n"
