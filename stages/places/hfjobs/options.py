"""An entry of places.yaml of the kind `hfjobs` in; what it says, checked, out."""

import urllib.parse
from typing import Annotated

from pydantic import Field, field_validator

from stages.core import secrecy
from stages.core.preparing import Prepared, RentedHours


class Options(Prepared):
    """An entry of the kind `hfjobs`.

    Attributes:
        flavor: the machine, such as a10g-small; `hf jobs hardware` lists them with their prices.
        git: the https address that the machine fetches the commit from; a private one with
            GIT_TOKEN among the secrets.
        image: of a public registry, with git and `python3`. The default is the Python image on
            Debian, which has both, and ssh; the slim one of that name has no git.
        namespace: whose jobs they are, and who pays for them; "" for the token's owner.
        hours: after so many the job ends itself; never 0. The Hub ends the machine half an hour
            later, whatever it does: that is for the set-up, and for ending in good order.
    """

    flavor: Annotated[str, Field(min_length=1)]
    git: str
    image: Annotated[str, Field(min_length=1)] = "python:3.12-bookworm"
    namespace: Annotated[str, Field(pattern=r"^[\w.-]*$")] = ""
    hours: RentedHours = 6.0

    @field_validator("env_file")
    @classmethod
    def _kept_there(cls, file: str) -> str:
        if file:
            raise ValueError("a new machine has no file of yours; the Hub keeps the secrets")
        return file

    @field_validator("git")
    @classmethod
    def _reached(cls, git: str) -> str:
        if not git.startswith("https://"):
            raise ValueError("the machine has no key for ssh; write https://<host>/<repository>")
        if secrecy.found(git) or "@" in urllib.parse.urlsplit(git).netloc:
            raise ValueError("nobody's name or secret belongs in it; name GIT_TOKEN in `secrets`")
        return git
