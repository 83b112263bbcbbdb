"""The state of the page: its text in the address, run by node, and what page and command refuse alike."""

import time
from urllib.parse import quote

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crossentropy import explore

EXAMPLE = {
    "logits": [[2, 1, 0.1], [0.1, 2, 1.9]], "targets": [1, 0], "names": ["cat", "dog", "bird"],
    "temperature": 1, "label_smoothing": 0, "reduction": "mean", "rate": 1, "trace": [],
    "row": 0, "entry": [0, 0],
}  # fmt: skip
FRAGMENT = "v1;A=2,1,0.1/0.1,2,1.9;Y=1,0;names=cat,dog,bird;t=1;eps=0;r=mean;rate=1"
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of the text


def test_example(node):
    example, fragment, read, none = node([
        ["EXAMPLE"], ["toFragment", EXAMPLE], ["fromFragment", f"#{FRAGMENT}"], ["fromFragment", ""],
    ])  # fmt: skip
    assert example == EXAMPLE
    assert fragment == FRAGMENT
    assert read == none == {"state": EXAMPLE, "problem": None}


def test_parts_left_out_are_the_examples(node):
    (read,) = node([["fromFragment", "v1;A=1,2,3,4;Y=0.1,0.2,0.3,0.4"]])
    changed = {"logits": [[1, 2, 3, 4]], "targets": [[0.1, 0.2, 0.3, 0.4]], "names": ["0", "1", "2", "3"]}
    assert read == {"state": EXAMPLE | changed, "problem": None}


@st.composite
def states(draw):
    N, C = draw(st.integers(1, 8)), draw(st.integers(2, 10))
    logit = st.floats(-10000, 10000)
    index = st.integers(0, C - 1)
    letters = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters=TURNING)
    name = st.text(letters, min_size=1, max_size=60).filter(lambda text: text.replace("\ufeff", "").strip())
    soft = st.lists(st.integers(0, 9), min_size=C, max_size=C).filter(any).map(lambda w: [x / sum(w) for x in w])
    targets = draw(st.sampled_from([index, soft]))
    return {
        "logits": draw(st.lists(st.lists(logit, min_size=C, max_size=C), min_size=N, max_size=N)),
        "targets": draw(st.lists(targets, min_size=N, max_size=N)),
        "names": draw(st.lists(name, min_size=C, max_size=C)),
        "temperature": draw(st.floats(0.05, 20)),
        "label_smoothing": draw(st.floats(0, 1)),
        "reduction": draw(st.sampled_from(["mean", "sum"])),
        "rate": draw(st.floats(0, 100, exclude_min=True)),
        "trace": draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5)),
        "row": draw(st.integers(0, N - 1)),
        "entry": draw(st.lists(index, min_size=2, max_size=2)),
    }


# Many states to a process; none is made smaller, which would take a process for each try.
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(st.lists(states(), min_size=20, max_size=20))
def test_fragment_loses_nothing(node, given_states):
    fragments = node([["toFragment", state] for state in given_states])
    for state, fragment, read in zip(
        given_states, fragments, node([["fromFragment", f"#{fragment}"] for fragment in fragments]), strict=True
    ):
        assert read == {"state": state, "problem": None}
        assert quote(fragment, safe="%;=,/+!'()*~") == fragment  # nothing that a browser would change in an address
        assert explore.validate(state) is None


BAD_FRAGMENTS = [
    *("section-2", "v2;A=1,2;Y=0", "v1", "v1;", ";", "=;=;=", "v1;A=1,2", "v1;Y=0", "v1;A=;Y=0", "v1;A=1,2;Y="),
    *(f"v1;A={A};Y=0" for A in ("NaN,2", "1e999,2", "1e308,2", "Infinity,2", "0x10,2", "1, 2", "1,,2", "//", "1")),
    *(f"v1;A=1,2;Y={Y}" for Y in ("2", "-1", "0.5", "0,1,0", "0.5,0.6", "2,-1", "0" * 10**5, "0" * 10**5 + "9")),
    *("v1;A=1,2/1;Y=0,0", "v1;A=1,2/3,4;Y=0", f"v1;A={'/'.join(['1,2'] * 9)};Y={','.join('0' * 9)}"),
    f"v1;A={','.join('1' * 11)};Y=0",
    *("v1;A=1,2;A=1,2;Y=0", "v1;A=1,2;Y=0;x=1", "v1;A=1,2;Y=0;__proto__=1", "v1;A=1,2;Y=0;constructor=1"),
    *(f"v1;A=1,2;Y=0;names=a{rest}" for rest in ("", ",", ",%ff", ",%", ",%0a", ",%E2%80%AE", f",{61 * 'b'}")),
    *(f"v1;A=1,2;Y=0;{part}" for part in ("t", "t=0", "t=21", "eps=-1", "eps=1.1", "r=none", "rate=0", "rate=101")),
    *(f"v1;A=1,2;Y=0;trace={trace}" for trace in ("1e999", "", ",".join(["1"] * 201))),
    *(f"v1;A=1,2;Y=0;{part}" for part in ("row=1", "row=0.5", "entry=0", "entry=0,2")),
]  # fmt: skip


def test_no_fragment_stops_the_page(node):
    """The time to refuse a number grows as its length, not as the square of it."""
    begin = time.monotonic()
    found = node([["fromFragment", f"v1;A={'1' * 19980}x"]] * 10)
    assert all(read["problem"] for read in found)
    assert time.monotonic() - begin < 4  # seconds; squared it takes ten


def test_bad_fragments_fall_back(node):
    for fragment, read in zip(BAD_FRAGMENTS, node([["fromFragment", f"#{f}"] for f in BAD_FRAGMENTS]), strict=True):
        assert read["state"] == EXAMPLE, fragment[:100]
        assert read["problem"], fragment[:100]
        assert len(read["problem"]) < 200, fragment[:100]


def changed(**parts):
    return EXAMPLE | parts


REFUSED = [
    *(changed(names=["a", "b", f"c{letter}"]) for letter in TURNING),
    *(changed(targets=[[0, 1, 0], [1, off, 0]]) for off in (1e-5, 1e-3)),
    {}, [], 3, "text",
    *(changed(**{name: None}) for name in EXAMPLE), *(changed(**{name: "text"}) for name in EXAMPLE),
    *(changed(**{name: True}) for name in EXAMPLE), *(changed(**{name: [[None]]}) for name in EXAMPLE),
    *(changed(logits=x) for x in ([], [[]], [[1, 2, 3]], [[1, 2, 3], [1, 2]], [[1, 2, "3"], [1, 2, 3]])),
    *(changed(logits=[[x, 2, 3], [1, 2, 3]]) for x in (10001, -10000.5, None, True, [], {}, 10**400)),
    changed(logits=[[1, 2, 3]] * 9, targets=[0] * 9), changed(logits=[[1], [2]], names=["a"], targets=[0, 0]),
    changed(logits=[[0.0] * 11] * 2, names=list("abcdefghijk")),
    *(changed(targets=x) for x in ([], [1], [1, 3], [1, -1], [1, 0.5], [1, True], [1, [0, 1, 0]], [[0, 1], [1, 0]])),
    *(changed(targets=[[0, 1, 0], x]) for x in ([0.5, 0.5, 0.1], [-0.5, 1, 0.5], [None, 1, 0], [0, 0, 0], [3, -1, -1])),
    *(changed(names=["a", "b", x]) for x in ("", " ", "\ufeff", "\n", "a\u2028", "\u202e", "\ud800", "x" * 61, 3)),
    changed(names=["a", "b"]), changed(names="abc"),
    *(changed(temperature=x) for x in (0, 0.04, 20.1, -1)), *(changed(label_smoothing=x) for x in (-0.1, 1.1)),
    *(changed(reduction=x) for x in ("none", "Mean", 1)), *(changed(rate=x) for x in (0, -1, 100.1)),
    *(changed(trace=x) for x in ([None], ["1"], [10**400], [1.0] * 201, [[1]])),
    *(changed(row=x) for x in (2, -1, 0.5, [0])),
    *(changed(entry=x) for x in ([0], [0, 3], [0, -1], [0, 1, 2], [0, 1.5])),
]  # fmt: skip
ACCEPTED = [
    EXAMPLE, changed(names=["<script>", "a;b,c/d=e#%", "\U0001f431‍"]), changed(targets=[1.0, 0]), changed(rate=100),
    changed(targets=[[0.25, 0.25, 0.5], [1 / 3, 1 / 3, 1 / 3]]), changed(temperature=0.05, label_smoothing=1),
    changed(logits=[[10000, -10000, 0], [0, 0, 0]]), changed(trace=[1.0] * 200), changed(names=["x" * 60, "b", "c"]),
    changed(row=1, entry=[2, 1]), changed(targets=[[0, 1, 0], [1, 5e-7, 0]]),
]  # fmt: skip


def test_page_and_python_refuse_the_same(node):
    problems = node([["validate", state] for state in ACCEPTED])
    assert problems == [None] * len(ACCEPTED)
    for state in ACCEPTED:
        assert explore.validate(state) is None, state
    for state, problem in zip(REFUSED, node([["validate", state] for state in REFUSED]), strict=True):
        expected = explore.validate(state) if isinstance(state, dict) else "not even called"
        assert problem, state
        assert expected, state
        if isinstance(state, dict):
            assert problem.split(", got")[0] == expected.split(", got")[0]
