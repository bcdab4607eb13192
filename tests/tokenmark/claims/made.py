"""Made claims, for the tests of what is made of them."""

from tokenmark.claims.files import Filed
from tokenmark.claims.schema import Claim, Paper

AXES = {
    "protocol": "mini",
    "data": "digits-32/val",
    "samples": 500,
    "resolution": 32,
    "precision": "float32",
    "selection": "unstated",
}


def claim(**changes) -> Claim:
    """The claim that quality 50 of JPEG has an rFID of 12.3, as the made record of it has."""
    facts = {
        "id": "q50-rfid",
        "about": "quality 50",
        "quantity": "rfid",
        "value": "12.3",
        "subject": {"method": "jpeg", "variant": "q50"},
        "printed": "table 1",
        "origin": "paper",
        **AXES,
    }
    return Claim.model_validate({key: value for key, value in {**facts, **changes}.items() if value is not None})


def filed(**changes) -> Filed:
    """That claim in a paper's file."""
    made = claim(**changes)
    paper = Paper(version=1, title="Made", url="https://example.org", year=1992, name="JPEG", claims=[made])
    return Filed("jpeg", paper, made)
