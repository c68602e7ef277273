"""List of the image's content (SPDX 2.3, JSON): apmpi, Debian's packages, their sources and licences."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import licences


def packages(dpkg_status: str) -> Iterator[dict[str, str]]:
    """Return the fields of each installed package of /var/lib/dpkg/status."""
    for paragraph in dpkg_status.strip().split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        if fields["Status"].endswith(" installed"):
            yield fields


def document(dpkg_status: str, copyrights: dict[str, str], version: str, epoch: int) -> str:
    """Return the list, with `copyrights` by package. Raises SystemExit if one is missing."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries = [_entry("apmpi", version, f"pkg:generic/apmpi@{version}", "Apache-2.0")]
    extracted = licences.Extracted()
    for fields in packages(dpkg_status):
        name, number, architecture = fields["Package"], fields["Version"], fields["Architecture"]
        if name not in copyrights:
            raise SystemExit(f"image: /usr/share/doc/{name}/copyright: missing, expected in each package")
        # "Source: name (version)" only if the source's version differs.
        source, _, source_version = fields.get("Source", name).partition(" ")
        declared = licences.declared(source, copyrights[name], extracted)
        entry = _entry(name, number, f"pkg:deb/debian/{name}@{number}?arch={architecture}", declared)
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
            "hasExtractedLicensingInfos": [
                {"licenseId": name, "name": name.removeprefix("LicenseRef-"), "extractedText": text}
                for name, text in extracted.texts.items()
            ],
        },
        indent=1,
    )


def _entry(name: str, version: str, locator: str, declared: str) -> dict[str, object]:
    return {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", name),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseDeclared": declared,
        # The files have not been analysed one by one.
        "licenseConcluded": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}
        ],
    }
