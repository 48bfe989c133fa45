"""What the tape sections of the configuration accept, and how they refuse."""

from __future__ import annotations

import pytest

from vcbproxy import config
from vcbproxy.errors import ConfigError

LIBRARY = '[tape.library.main]\nchanger = "LIB1"\n'
POOL = '[tape.pool.daily]\nbarcodes = ["TAP001L8-TAP040L8"]\nretention = "30d"\n'
RECIPIENT = "age1" + 30 * "q"


def loaded(tmp_path, text):
    path = tmp_path / "vcbproxy.toml"
    path.write_text(text)
    return config.load(path)


def test_a_pool_knows_its_cartridges_and_its_library(tmp_path):
    tape = loaded(tmp_path, LIBRARY + POOL).tape
    assert "TAP012L8" in tape.pool["daily"].barcodes[0]
    assert tape.library_of("daily") == "main"
    assert tape.pool["daily"].allocation is config.Allocation.CONTINUE


def test_a_folder_is_taken_from_the_file_s_own_directory(tmp_path):
    tape = loaded(tmp_path, '[tape.library.main]\nfolder = "lib"\n').tape
    assert tape.library["main"].folder == tmp_path / "lib"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[tape.library.main]\n", "exactly one of changer, drive, folder and portal"),
        (LIBRARY + 'folder = "lib"\n', "exactly one of changer, drive, folder and portal"),
        ('[tape.library.main]\nfolder = "lib"\nrobot = "mtx"\n', "mtx needs a changer"),
        (POOL, "pool daily: name its library: there are 0"),
        (LIBRARY + POOL + 'library = "other"\n', "no \\[tape.library.other\\]"),
        (LIBRARY + POOL + 'allocation = "weekly"\n', "weekday goes with"),
        (LIBRARY + POOL + 'weekday = "mon"\n', "weekday goes with"),
        (LIBRARY + POOL + 'allocation = "always"\nappendable_for = "7d"\n', "appendable_for goes with"),
        (LIBRARY + POOL + 'encryption = "age"\n', "needs recipients"),
        (LIBRARY + POOL + 'encryption = "hardware"\n', "needs exactly one of hardware_key"),
        (LIBRARY + POOL + f'encryption = "hardware"\nhardware_key_file = "k"\nrecipients = ["{RECIPIENT}"]\n',
         "recipients, identity_file and identity_command go with"),
        (LIBRARY + POOL + 'hardware_key_file = "k"\n', "go with encryption"),
        (LIBRARY + POOL + 'identity_command = "pass age"\n', "go with encryption"),
        (LIBRARY + POOL + f'encryption = "age"\nrecipients = ["{RECIPIENT}"]\nidentity_file = "k"\n'
         'identity_command = "pass age"\n', "only one of identity_file"),
        (LIBRARY + POOL + 'encryption = "age"\nrecipients = ["AGE-SECRET-KEY-1"]\n', "public half"),
        (LIBRARY + POOL.replace("30d", "a month"), "tape.pool.daily.retention"),
        (LIBRARY + POOL.replace("TAP040L8", "TAP040L9"), "both ends must be alike"),
        ('[tape.library."a b"]\nchanger = "LIB1"\n', "names are of letters"),
        ('[catalog]\nurl = "postgresql://me:secret@db/x"\n', "password does not belong"),
        ('[catalog]\nurl = "mysql://db/x"\n', "sqlite:"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        loaded(tmp_path, text)
