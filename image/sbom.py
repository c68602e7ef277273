"""The list of what is in the image (SPDX 2.3, JSON): Debian's packages, their sources, and apmpi."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime


def packages(dpkg_status: str) -> Iterator[dict[str, str]]:
    """The fields of each installed package of /var/lib/dpkg/status."""
    for paragraph in dpkg_status.strip().split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields["Status"].endswith(" installed"):
            yield fields


def document(dpkg_status: str, version: str, epoch: int) -> str:
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = [_entry("apmpi", version, f"pkg:generic/apmpi@{version}", "Apache-2.0")]
    for fields in packages(dpkg_status):
        name, number, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        # "Source: name (version)" only where it is another one.
        source, _, source_version = fields.get("Source", name).partition(" ")
        entry = _entry(name, number, f"pkg:deb/debian/{name}@{number}?arch={architecture}", "NOASSERTION")
        entry["sourceInfo"] = f"{source} {source_version.strip('()') or number}"
        entries.append(entry)
    return json.dumps(
        {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"apmpi-{version}-arm64",
            "documentNamespace": f"https://apmpi.invalid/spdx/{version}/{epoch}",
            "creationInfo": {"created": created, "creators": ["Tool: apmpi make image"]},
            "packages": entries,
            "documentDescribes": [entry["SPDXID"] for entry in entries],
        },
        indent=1,
    )


def _entry(name: str, version: str, locator: str, license_: str) -> dict[str, object]:
    return {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", name),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "licenseDeclared": license_,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}
        ],
    }
