"""Which cartridge is written next, and which never is: a pool over an emulated library."""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import Enum
from uuid import uuid4

import pytest

from tape import memory
from tape.drive import TapeDrive
from tape.emulator.check import Check
from tape.emulator.kinds import Kind
from tape.emulator.library import VirtualLibrary
from tape.errors import RefusedCommand, VerifyFailed
from tape.ltfs.format import Maker, Naming, make_volume
from tape.ltfs.volume import LtfsVolume
from tape.scsi.sense import Key
from tests.archive.pools import FRIDAY, IMAGE, LIBRARY, MAKER, World, barcodes, content, written
from vcbproxy.archive import reader
from vcbproxy.archive.hand import Hand
from vcbproxy.archive.keeper import Keeper
from vcbproxy.archive.lane import TapeLane
from vcbproxy.archive.pool import PoolShelf
from vcbproxy.archive.rebuild import rebuild
from vcbproxy.archive.releasing import recycle
from vcbproxy.catalog.length import Length
from vcbproxy.catalog.medium import FORMATTING, State
from vcbproxy.config import Allocation
from vcbproxy.errors import Busy, CartridgeFailed, CartridgeWanted, Error, IntegrityError


@pytest.fixture
def world(tmp_path):
    return World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", "TAP003L8", "CLN001L8")


def test_a_blank_cartridge_is_labelled_and_written(world):
    point = world.archive("web01")
    assert point.barcodes == ("TAP001L8",)
    assert world.read(point) == content("web01", 1 << 20)
    with world.catalog() as catalog:
        medium = catalog.media.get("TAP001L8")
        [media_set] = catalog.sets.listed()
    assert medium.state is State.APPENDABLE
    assert (medium.pool, medium.media_set) == ("daily", media_set.id)
    assert medium.volume_uuid == point.parts[0].volume_uuid
    assert medium.bytes_written == sum(part.size_bytes for part in point.parts)
    assert 0 < medium.remaining_bytes < medium.capacity_bytes
    assert medium.retention_until == media_set.retention_until == world.terms().retention.after(FRIDAY)
    with world.opened() as (library, _), library.loaded("TAP001L8") as drive:
        told = {one: memory.read(drive, 0, one).text for one in (memory.Id.APPLICATION_NAME, memory.Id.MEDIA_POOL)}
        assert told == {memory.Id.APPLICATION_NAME: "vcbproxy", memory.Id.MEDIA_POOL: "daily"}
        volume = LtfsVolume.mount(drive, Maker("ANYBODY", "x", "1"), lambda: 0)
        assert b'"retention_until": "2026-12-27T01:00:00Z"' in volume.index.root.xattrs["vcbproxy.medium"]


def test_a_set_goes_on_where_it_ended_until_it_is_too_old(world):
    terms = world.terms(appendable_for="7d")
    points = [world.archive("a", terms=terms)]
    world.clock.pass_(days=6)
    points.append(world.archive("b", terms=terms))
    world.clock.pass_(days=2)
    points.append(world.archive("c", terms=terms))
    assert barcodes(points) == ["TAP001L8", "TAP001L8", "TAP002L8"]
    assert points[0].media_set == points[1].media_set != points[2].media_set
    with world.catalog() as catalog:
        assert [one.closed for one in catalog.sets.listed()] == [True, False]


def test_a_cartridge_that_failed_is_not_tried_again_in_the_same_job_run(world):
    """What did not come back as it was written is written once more: onto another one, as the job says."""
    with world.shelf() as shelf, TapeLane(shelf) as lane:
        assert lane.cartridge.barcode == "TAP001L8"
        lane.give_up(CartridgeFailed("/web01, block 7: another block was read than written"))
        assert lane.cartridge.barcode == "TAP002L8"


def test_what_is_appended_to_is_not_recycled_meanwhile(world):
    """A set that had expired and is written to again is kept from the first moment on, and what is added to it."""
    world.archive("web01")
    world.clock.pass_(days=31)
    with world.shelf() as shelf, TapeLane(shelf) as lane:
        point = written(lane, "web02", content("web02", 1 << 20), world.clock.moment)
        with world.catalog() as catalog:
            catalog.points.add(point)
            keeper = Keeper(catalog, LIBRARY, {"daily": Length.parse("30d")}, Hand(MAKER, world.clock))
            assert recycle(keeper, None, dry_run=False) == []
            assert catalog.points.get(point.id) == point


def test_always_a_new_set_for_each_job_run(world):
    terms = world.terms(allocation=Allocation.ALWAYS)
    with world.shelf(terms) as shelf:
        one, two = world.put(shelf, "a"), world.put(shelf, "b")
    other = world.archive("c", terms=terms)
    assert one.media_set == two.media_set != other.media_set
    assert barcodes([one, two, other]) == ["TAP001L8", "TAP001L8", "TAP002L8"]


def test_a_new_set_each_friday(world):
    terms = world.terms(allocation=Allocation.WEEKLY)
    points = []
    for days in (0, 6, 1, 5):  # Friday, Thursday, Friday, Wednesday
        world.clock.pass_(days=days)
        points.append(world.archive(f"vm{days}", terms=terms))
    assert barcodes(points) == ["TAP001L8", "TAP001L8", "TAP002L8", "TAP002L8"]


def test_an_older_copy_of_a_cartridge_is_not_appended_to(world):
    """A delta upon what it lacks would be said to be safe; what was found is told, and mended by a look."""
    world.archive("web01")
    shutil.copytree(world.folder("TAP001L8"), world.root / "older")
    lost = world.archive("web02")
    shutil.rmtree(world.folder("TAP001L8"))
    (world.root / "older").rename(world.folder("TAP001L8"))
    assert world.archive("web03").barcodes == ("TAP002L8",)
    with world.opened() as (library, keeper):
        known = keeper.catalog.media.get("TAP001L8")
        assert "lacks /web02" in known.reason
        assert known.doubtful
        assert rebuild(library, keeper, ["TAP001L8"]).gone == [lost]
        assert not keeper.catalog.media.get("TAP001L8").doubtful


def test_a_cartridge_that_ends_before_its_files_do_is_not_appended_to(world):
    """Its memory does not know that records were lost; what is written there would take the place of files."""
    point = world.archive("web01", 4 << 20)
    records = sorted(world.folder("TAP001L8").glob("1_*_[RF]"), key=lambda path: int(path.name.split("_")[1]))
    for record in records[-9:]:
        record.unlink()
    assert world.archive("web02").barcodes == ("TAP002L8",)
    assert {part.barcode for part in point.parts} == {"TAP001L8"}
    assert len(list(world.folder("TAP001L8").glob("1_*_[RF]"))) == len(records) - 9, "nothing was written to it"


def test_one_that_cannot_be_carried_is_passed_over_for_now(world):
    """... as one that is stuck in its slot; when none can be, it is the robot that is told of."""
    world.folder("TAP001L8").rename(world.root / "stuck")
    assert world.archive("web01").barcodes == ("TAP002L8",)
    for barcode in ("TAP002L8", "TAP003L8"):
        world.folder(barcode).rename(world.root / barcode)
    with pytest.raises(Error, match="was not carried"):
        world.archive("web02")


def test_what_is_full_is_not_given_again(world):
    with world.shelf() as shelf:
        assert world.fill(shelf, "large") == "TAP001L8"
        assert world.put(shelf, "small").barcodes == ("TAP002L8",)
    with world.catalog() as catalog:
        states = {medium.barcode: medium.state for medium in catalog.media.listed()}
    assert states == {"TAP001L8": State.FULL, "TAP002L8": State.APPENDABLE}


def test_nothing_left_is_asked_for_by_label(world):
    with world.shelf() as shelf:
        for name in ("a", "b", "c"):
            world.fill(shelf, name)
        with (
            pytest.raises(CartridgeWanted, match="bring a new one with a label") as caught,
            shelf.for_writing(),
        ):
            pass
    assert caught.value.barcodes == ("TAP001L8-TAP099L8",)
    assert caught.value.exit_code == 14


def test_what_has_expired_is_written_over_the_oldest_first(world):
    points = []
    terms = world.terms(allocation=Allocation.ALWAYS)
    for name in ("a", "b", "c"):
        points.append(world.archive(name, terms=terms))
        world.clock.pass_(days=7)
    world.clock.pass_(days=10)  # the first one is 31 days old, the second 24
    again = world.archive("d", terms=terms)
    assert again.barcodes == ("TAP001L8",)
    with world.catalog() as catalog:
        assert {point.vm for point in catalog.points.listed()} == {"b", "c", "d"}
    with pytest.raises(CartridgeWanted):
        world.archive("e", terms=terms)
    assert world.read(points[1]) == content("b", 1 << 20)


def test_what_builds_upon_what_is_written_over_is_listed_no_more(world):
    """Both have expired, and only the base's cartridge is needed: what is left of the delta restores nothing."""
    terms = world.terms(allocation=Allocation.ALWAYS)
    base = world.archive("web01", terms=terms)
    world.archive("web01", terms=terms, base=base.id)
    world.clock.pass_(days=31)
    with world.shelf(terms) as shelf:
        world.fill(shelf, "what takes the last free one")
    assert world.archive("new", terms=terms).barcodes == ("TAP001L8",)
    with world.catalog() as catalog:
        assert [point.vm for point in catalog.points.listed()] == ["new"]


def test_what_a_kept_delta_builds_upon_is_not_written_over(world):
    terms = world.terms(allocation=Allocation.ALWAYS)
    base = world.archive("web01", terms=terms)
    world.clock.pass_(days=20)
    world.archive("web01", terms=terms, base=base.id)
    world.archive("other", terms=terms)
    world.clock.pass_(days=11)
    with pytest.raises(CartridgeWanted):
        world.archive("new", terms=terms)
    world.clock.pass_(days=20)
    assert world.archive("new", terms=terms).barcodes == ("TAP001L8",)


def test_a_longer_rule_holds_at_once_a_shorter_one_does_not(world):
    terms = world.terms(allocation=Allocation.ALWAYS)
    for name in ("a", "b", "c"):
        world.archive(name, terms=terms)
    world.retention["daily"] = "1y"
    world.clock.pass_(days=31)
    with pytest.raises(CartridgeWanted):
        world.archive("d", terms=world.terms(allocation=Allocation.ALWAYS))
    world.retention["daily"] = "1d"
    assert world.archive("d", terms=world.terms(allocation=Allocation.ALWAYS)).barcodes == ("TAP001L8",)


def test_a_clock_that_jumps_frees_nothing(world):
    """A dead battery: by that clock everything has expired; in the second night, too."""
    terms = world.terms(allocation=Allocation.ALWAYS)
    for name in ("a", "b"):
        world.archive(name, terms=terms)
    world.clock.pass_(days=3650)
    assert world.archive("c", terms=terms).barcodes == ("TAP003L8",)
    world.clock.pass_(days=1)
    with pytest.raises(CartridgeWanted, match=r"until 2026-11-27 is not written over by itself.*if the clock is right"):
        world.archive("d", terms=terms)
    with world.opened() as (_, keeper):
        recycle(keeper, None, dry_run=False)
    assert world.archive("d", terms=terms).barcodes == ("TAP001L8",)


def test_an_expired_cartridge_that_says_otherwise_itself_is_left_alone(world):
    """The catalog may have been lost, restored from yesterday, or edited by hand."""
    point = world.archive("web01")
    with world.catalog() as catalog:
        catalog.media.change("TAP001L8", lambda known: replace(known, retention_until=FRIDAY, last_written=None))
        catalog.sets.put(replace(catalog.sets.listed()[0], retention_until=FRIDAY, last_written=None, closed=True))
    world.clock.pass_(days=1)
    terms = world.terms(allocation=Allocation.ALWAYS)
    with world.shelf(terms) as shelf:
        assert world.fill(shelf, "x") == "TAP002L8"
        assert world.fill(shelf, "y") == "TAP003L8"
        with pytest.raises(CartridgeWanted), shelf.for_writing():
            pass
    with world.catalog() as catalog:
        assert "it says of itself that it is kept until 2026-12-27" in catalog.media.get("TAP001L8").reason
        assert point.id in {one.id for one in catalog.points.listed()}
    assert world.read(point) == content("web01", 1 << 20)


def test_a_lost_catalog_costs_no_data(world):
    point = world.archive("web01")
    world.catalog_file.unlink()
    assert world.archive("web02").barcodes == ("TAP002L8",)
    assert world.read(point) == content("web01", 1 << 20)


def foreign_ltfs(world, barcode):
    library = VirtualLibrary.open(world.root / "library")
    lun = library.drives[0]
    lun.insert(world.cartridge(barcode))
    drive = TapeDrive(library.drive_transport(0), sleep=lambda _: None)
    drive.load()
    make_volume(drive, Naming(barcode, str(uuid4()), "theirs"), Maker("OTHERS", "Backup", "9"), 10**18)
    drive.close()


def foreign_records(world, barcode):
    tape = world.cartridge(barcode)
    tape.tracks[0].write(0, b"a tape of another program" * 100)
    tape.flush()


def written_by_programs(folder):
    """What is recorded, and what of its memory the drive does not keep by itself: identifiers from 0400h on."""
    found = {}
    for path in folder.iterdir():
        kept = path.name.startswith("attr_") and int(path.name.rsplit("_", 1)[1], 16) < 0x400
        if path.is_file() and not kept:
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize(
    ("foreign", "told"), [(foreign_ltfs, "OTHERS Backup 9"), (foreign_records, "a program that left no name")]
)
def test_what_is_not_ours_is_never_written_over(world, foreign, told):
    foreign(world, "TAP001L8")
    before = written_by_programs(world.folder("TAP001L8"))
    assert world.archive("web01").barcodes == ("TAP002L8",)
    after = written_by_programs(world.folder("TAP001L8"))
    assert after == before
    with world.catalog() as catalog:
        medium = catalog.media.get("TAP001L8")
    assert medium.state is State.FOREIGN
    assert told in medium.reason


def test_a_cartridge_of_the_wrong_label_is_passed_over(world):
    """Two labels were swapped: each cartridge says so itself."""
    world.archive("web01")
    one, two, aside = world.folder("TAP001L8"), world.folder("TAP002L8"), world.root / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)
    point = world.archive("web02")
    assert point.barcodes == ("TAP003L8",)
    with (
        pytest.raises(IntegrityError, match="says of itself that it is TAP001L8"),
        world.shelf() as shelf,
        shelf.for_reading("TAP002L8"),
    ):
        pass


def test_another_volume_than_the_catalog_means_is_not_read(world):
    point = world.archive("web01")
    with world.catalog() as catalog:
        catalog.media.change("TAP001L8", lambda known: replace(known, volume_uuid=str(uuid4())))
    with pytest.raises(IntegrityError, match="should hold volume"):
        world.read(point)


def test_a_cartridge_elsewhere_is_asked_for(world):
    with world.catalog() as catalog:
        world.archive("web01")
        catalog.media.change("TAP001L8", lambda known: replace(known, vault="salt mine"))
    library = VirtualLibrary.open(world.root / "library")
    address = next(address for address, barcode in library.shelf.full.items() if barcode == "TAP001L8")
    del library.shelf.full[address]
    library.save()
    with world.shelf() as shelf:
        with pytest.raises(CartridgeWanted, match="in vault salt mine") as caught, shelf.for_reading("TAP001L8"):
            pass
        assert caught.value.barcodes == ("TAP001L8",)


def test_of_two_with_one_label_neither_is_used(world):
    library = VirtualLibrary.open(world.root / "library")
    address = next(address for address, barcode in library.shelf.full.items() if barcode == "TAP002L8")
    library.shelf.full[address] = "TAP001L8"
    library.save()
    assert world.archive("web01").barcodes == ("TAP003L8",)


def test_a_cartridge_that_the_drive_does_not_take_is_passed_over(world):
    """As one of a generation that it cannot write."""
    with world.opened() as (library, keeper):
        shelf = PoolShelf(world.terms(), LIBRARY, library, keeper, drive_session=refuse_the_first())
        with shelf.for_writing() as cartridge:
            assert cartridge.barcode == "TAP002L8"


def refuse_the_first():
    refused = []

    @contextmanager
    def session(drive):
        if not refused:
            refused.append(drive)
            raise RefusedCommand(device=drive.name, command="load", reason="incompatible", key=5, asc=0x30, ascq=0)
        yield

    return session


def test_every_drive_is_given_once(world):
    with world.shelf() as shelf:
        with shelf.for_writing() as one, shelf.for_writing() as two:
            assert {one.barcode, two.barcode} == {"TAP001L8", "TAP002L8"}
            assert one.media_set == two.media_set
            with pytest.raises(Busy), shelf.for_writing():
                pass
        with shelf.for_writing() as again:
            assert again.barcode == "TAP001L8"


def test_threads_write_side_by_side(world):
    failures, points = [], []
    with world.shelf() as shelf:

        def work(number):
            try:
                points.append(world.put(shelf, f"vm{number}", 3 << 20))
            except Exception as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    for point in points:
        assert world.read(point) == content(point.vm, 3 << 20)


def test_an_error_of_the_writer_leaves_what_was_committed(world):
    kept = world.archive("web01")

    def fail_half_way():
        with world.shelf() as shelf, shelf.for_writing() as cartridge:
            cartridge.volume.create("/half").write(b"half" * 1000)
            raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="the source failed"):
        fail_half_way()
    with world.catalog() as catalog:
        assert catalog.media.get("TAP001L8").state is State.APPENDABLE
    assert world.archive("web02").barcodes == ("TAP001L8",)
    assert world.read(kept) == content("web01", 1 << 20)


def test_a_writer_that_died_costs_what_it_had_not_committed(world):
    kept = world.archive("web01")
    world.leave_half_written("TAP001L8")
    again = world.archive("web02")
    assert again.barcodes == ("TAP001L8",)
    assert world.read(kept) == content("web01", 1 << 20)
    assert world.read(again) == content("web02", 1 << 20)


def test_what_was_left_half_written_can_be_read_at_once(world):
    """A restore after a crash of the backup: nothing is written for it, not even to mend the volume."""
    kept = world.archive("web01")
    world.leave_half_written("TAP001L8")
    before = sorted(path.name for path in world.folder("TAP001L8").glob("[01]_*"))
    assert world.read(kept) == content("web01", 1 << 20)
    assert sorted(path.name for path in world.folder("TAP001L8").glob("[01]_*")) == before


def test_a_cartridge_that_somebody_uses_is_passed_over_for_now(world):
    """Another task reads the one that the set would go on on."""
    kept = world.archive("web01")
    with world.shelf() as shelf:
        with shelf.for_reading("TAP001L8"):
            other = world.put(shelf, "web02")
        assert other.barcodes == ("TAP002L8",)
        assert other.media_set == kept.media_set
        assert world.put(shelf, "web03").barcodes == ("TAP001L8",)


def test_a_writer_waits_for_a_drive_while_others_use_them(world):
    with world.opened() as (library, keeper):
        waited = []

        def others_finish(seconds):
            waited.append(seconds)
            reading.close()

        shelf = PoolShelf(world.terms(), LIBRARY, library, keeper, wait_s=60, sleep=others_finish)
        with ExitStack() as reading:
            for barcode in ("TAP002L8", "TAP003L8"):
                reading.enter_context(library.loaded(barcode))
            with shelf.for_writing() as cartridge:
                assert cartridge.barcode == "TAP001L8"
        assert waited == [1.0]


def test_what_is_written_is_kept_from_its_last_index_on(world):
    with world.shelf() as shelf, shelf.for_writing() as cartridge:
        world.clock.pass_(days=2)
        cartridge.volume.create("/a").finish()
        cartridge.volume.commit()
        generation = cartridge.volume.index.generation
        world.clock.pass_(days=3)
    assert cartridge.volume.index.generation == generation, "nothing was left to be committed"
    with world.catalog() as catalog:
        assert catalog.media.get("TAP001L8").retention_until == world.terms().retention.after(FRIDAY.replace(day=29))


def test_what_does_not_come_back_is_never_listed(world):
    """With read-back: a bit turns on its way to the drive."""
    with world.opened() as (library, keeper):
        shelf = PoolShelf(world.terms(), LIBRARY, library, keeper, verify=True)
        good = world.put(shelf, "web01")
        with shelf.for_writing() as cartridge:
            assert cartridge.volume.verifies
            tape, block = world.cartridge(cartridge.barcode), cartridge.volume.data_end
            writer = cartridge.volume.create("/bad")
            writer.write(content("bad", 3 << 19))
            writer.finish()
            assert tape.folder == world.folder("TAP001L8")
            turned = world.folder("TAP001L8") / f"1_{block}_R"
            turned.write_bytes(bytes((turned.read_bytes()[0] ^ 1,)) + turned.read_bytes()[1:])
            with pytest.raises(VerifyFailed, match="/bad"):
                cartridge.volume.commit()
            assert cartridge.volume.index.find("/bad") is None
    assert world.read(good) == content("web01", 1 << 20)


@pytest.mark.parametrize("objects", range(1, 9))
def test_a_death_while_formatting_costs_no_cartridge(tmp_path, objects):
    """Wherever it was cut off: the label's records, its filemarks, the first index."""
    world = World.with_cartridges(tmp_path, "TAP001L8")
    with world.opened() as (library, keeper), library.loaded("TAP001L8") as drive:
        found, volume = keeper.look(drive, "TAP001L8")
        keeper.label(drive, "TAP001L8", found, volume)
        keeper.catalog.media.change("TAP001L8", lambda known: replace(known, volume_uuid=None, released=FORMATTING))
    tape = world.cartridge("TAP001L8")
    for partition in (1, 0):  # in the order in which they are written
        tape.tracks[partition].overwrite(min(objects, tape.tracks[partition].end) if partition else max(objects - 4, 0))
    tape.flush()
    for path in world.folder("TAP001L8").glob("attr_*_80c"):
        path.unlink()
    assert world.archive("web01").barcodes == ("TAP001L8",)


def test_worm_is_appended_to_and_never_written_over(tmp_path):
    world = World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", kind=Kind(capacity_mib=100, worm=True))
    with world.opened() as (library, keeper), library.loaded("TAP001L8") as drive:
        found, volume = keeper.look(drive, "TAP001L8")
        keeper.label(drive, "TAP001L8", found, volume)
    points = [world.archive("a"), world.archive("b")]
    assert barcodes(points) == ["TAP001L8", "TAP001L8"]
    world.clock.pass_(days=365)
    assert world.archive("c", terms=world.terms(allocation=Allocation.ALWAYS)).barcodes == ("TAP002L8",)
    assert world.read(points[0]) == content("a", 1 << 20)


def test_a_write_protected_cartridge_is_passed_over(tmp_path):
    world = World.with_cartridges(tmp_path, "TAP002L8")
    tabbed = VirtualLibrary.open(world.root / "library")
    tabbed.import_cartridge("TAP001L8", Kind(capacity_mib=100, write_protected=True))
    assert world.archive("a").barcodes == ("TAP002L8",)
    with world.catalog() as catalog:
        assert catalog.media.get("TAP001L8").state is State.RETIRED


def test_a_cartridge_with_a_damaged_place_is_not_written_again(world):
    kept = world.archive("web01")
    world.befall = BadPlace(Command.WRITE)
    with pytest.raises(CartridgeFailed):
        world.archive("web02")
    assert world.state("TAP001L8") == (State.DAMAGED, 1)
    world.befall = lambda lun: None
    assert world.archive("web02").barcodes == ("TAP002L8",)
    assert world.read(kept) == content("web01", 1 << 20)


def test_a_cartridge_that_cannot_be_read_is_not_written_again(world):
    """Also where a restore goes on: what cannot be read fails its own disk, and the cartridge is left in peace."""
    kept = world.archive("web01")
    image = next(part for part in kept.parts if part.file == IMAGE)
    bad = world.befall = BadPlace(Command.READ)
    with world.shelf() as shelf, shelf.for_reading("TAP001L8") as cartridge:
        bad.begin()
        for _ in range(3):
            with pytest.raises(IntegrityError, match="a read failed"):
                list(reader.pieces(cartridge, image))
    assert world.state("TAP001L8") == (State.DAMAGED, 1)


def test_a_cartridge_that_cannot_be_mounted_is_not_written_again(world):
    world.archive("web01")
    bad = world.befall = BadPlace(Command.READ)
    bad.begin()
    with pytest.raises(IntegrityError, match="a read failed"), world.shelf() as shelf, shelf.for_reading("TAP001L8"):
        pass
    assert world.state("TAP001L8") == (State.DAMAGED, 1)


def test_a_cartridge_is_not_blamed_for_another_ones_damage(world):
    """As when a disk's thread tells what it met on the cartridge before, while the next one is read or written."""
    world.archive("web01")
    for given in (lambda shelf: shelf.for_reading("TAP001L8"), lambda shelf: shelf.for_writing()):
        with pytest.raises(IntegrityError, match="wrapped"), world.shelf() as shelf, given(shelf):
            raise _wrapped_medium_error()
        assert world.state("TAP001L8") == (State.APPENDABLE, 0)


class BadPlace:
    """All commands of a kind meet one, once it has begun."""

    def __init__(self, command):
        self._command = command
        self._begun = command is Command.WRITE

    def begin(self):
        self._begun = True

    def __call__(self, lun):
        lun.before = self._before

    def _before(self, lun, cdb):
        if self._begun and cdb[0] == self._command.value:
            raise Check(Key.MEDIUM_ERROR, 0x0C if self._command is Command.WRITE else 0x11)


class Command(Enum):
    READ = 0x08
    WRITE = 0x0A


def _wrapped_medium_error():
    from tape.errors import MediumError

    try:
        try:
            raise MediumError(device="D9", command="read", reason="a bad place", key=3, asc=0x11, ascq=0)
        except MediumError as error:
            raise IntegrityError("wrapped") from error
    except IntegrityError as wrapped:
        return wrapped


def test_a_look_at_one_cartridge_lists_nothing_whose_other_one_was_written_over(tmp_path):
    """They expired together, and one of them is taken again: what is left on the other restores no more."""
    world = World.with_cartridges(tmp_path, "TAP001L8", "TAP002L8", kind=Kind(capacity_mib=20))
    assert world.archive("web01", 24 << 20).barcodes == ("TAP001L8", "TAP002L8")
    world.clock.pass_(days=31)
    newer = world.archive("web02", terms=world.terms(allocation=Allocation.ALWAYS))
    assert newer.barcodes == ("TAP001L8",)
    with world.opened() as (library, keeper):
        done = rebuild(library, keeper, ["TAP002L8"])
        assert keeper.catalog.points.listed() == [newer]
    assert done.points == []
    assert [told for told in done.told if "web01" in told and "TAP001L8 was written over since" in told]


@pytest.mark.parametrize("writing", [True, False])
def test_a_catalog_that_fails_too_does_not_hide_what_went_wrong_first(world, writing):
    world.archive("web01")

    def fail():
        with (
            world.shelf() as shelf,
            shelf.for_writing() if writing else shelf.for_reading("TAP001L8"),
        ):
            world.break_catalog()
            raise _wrapped_medium_error()

    with pytest.raises(IntegrityError, match="wrapped"):
        fail()
