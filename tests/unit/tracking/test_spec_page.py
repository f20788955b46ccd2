"""espalier/spec.yaml says exactly the canonical spec, whatever reads it."""

from hypothesis import given
from hypothesis import strategies as st
from yaml import safe_load

from espalier.core.content import canonical
from espalier.core.model import Json, Spec
from espalier.tracking.page import spec_page

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["yes", "null", "1", "1e3", ".5", "0x1", "a: b", "- a", "2026-01-01", "~", "", "=", "@a", "1_000", "1:30", "{", "y"]
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUE: st.SearchStrategy[Json] = LEAF | st.lists(LEAF, max_size=3) | st.dictionaries(TEXT, LEAF, max_size=2)


@given(st.dictionaries(TEXT, VALUE, max_size=4))
def test_what_is_read_back_is_the_canonical_form(params: dict[str, Json]) -> None:
    spec = Spec(command=("python", "a b.py"), params=params)
    assert safe_load(spec_page(spec)) == canonical(spec)
