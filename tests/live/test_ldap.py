"""slapd, driven by the ldap-utils: binds, changes, searches, errors, StartTLS."""

from __future__ import annotations

import subprocess

from tests.live.observed import Observed, need

LDAP = 205
TLS = 121

CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
TLSCertificateFile {folder}/chain.pem
TLSCertificateKeyFile {folder}/key.pem
database mdb
suffix "dc=shop,dc=test"
rootdn "cn=admin,dc=shop,dc=test"
rootpw geheim
directory {folder}/data
"""
BASE = """
dn: dc=shop,dc=test
objectClass: dcObject
objectClass: organization
o: shop
dc: shop

dn: ou=people,dc=shop,dc=test
objectClass: organizationalUnit
ou: people
"""
PERSON = """
dn: uid=u{0},ou=people,dc=shop,dc=test
objectClass: inetOrgPerson
cn: User {0}
sn: {0}
uid: u{0}
description: {1}
"""
CHANGE = """
dn: uid=u1,ou=people,dc=shop,dc=test
changetype: modify
replace: sn
sn: changed

dn: uid=u2,ou=people,dc=shop,dc=test
changetype: delete
"""


def test_changes_searches_errors_and_tls(seen: Observed) -> None:
    need("slapd", "ldapsearch", "openssl")
    folder = seen.folder
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=shop.test"
    subprocess.run(
        [*words.split(), "-keyout", folder / "key.pem", "-out", folder / "chain.pem"], check=True, capture_output=True
    )
    (folder / "data").mkdir()
    (folder / "slapd.conf").write_text(CONFIG.format(folder=folder))
    (folder / "base.ldif").write_text(BASE + "".join(PERSON.format(i, "x" * (50 * i + 1)) for i in range(10)))
    (folder / "change.ldif").write_text(CHANGE)
    seen.start("slapd", "-f", folder / "slapd.conf", "-h", "ldap://127.0.0.1:13389", "-d", "0", port=13389)
    server = ["-x", "-H", "ldap://127.0.0.1:13389"]
    admin = [*server, "-D", "cn=admin,dc=shop,dc=test", "-w", "geheim"]
    people = ["-LLL", "-b", "ou=people,dc=shop,dc=test"]
    seen.run("ldapadd", *admin, "-f", folder / "base.ldif")
    assert seen.run("ldapsearch", *server, *people, "(uid=u3)", "cn").count("dn:") == 1
    assert seen.run("ldapsearch", *server, *people, "(objectClass=inetOrgPerson)").count("dn:") == 10
    seen.run("ldapmodify", *admin, "-f", folder / "change.ldif")
    # 49: invalid credentials; 32: no such object.
    wrong = ["ldapwhoami", *server, "-D", "cn=admin,dc=shop,dc=test", "-w", "falsch"]
    missing = ["ldapsearch", *server, "-b", "ou=nowhere,dc=shop,dc=test"]
    for command, code in ((wrong, "49"), (missing, "32")):
        assert seen.run("sh", "-c", '"$@" > /dev/null; echo $?', "sh", *command).strip() == code
    assert "anonymous" in seen.run("ldapwhoami", *server, "-ZZ", LDAPTLS_REQCERT="never")

    for point in ("c-p", "s-p"):
        rows = seen.rows(LDAP, point)
        assert {row["type"] for row in rows} == {2}
        asked = [row["request_type"] for row in rows]
        count = {name: asked.count(name) for name in set(asked)}
        # The last client says who it is within TLS.
        expected = {"Bind": 6, "Add": 12, "Search": 3, "Modify": 1, "Delete": 1, "Extended": 1}
        assert {name: count.get(name) for name in expected} == expected
        assert set(asked) - set(expected) <= {"Unbind"}
        searches = [row for row in rows if row["request_type"] == "Search"]
        assert [row["request_resource"] for row in searches] == [
            "ou=people,dc=shop,dc=test sub (uid=u3)",
            "ou=people,dc=shop,dc=test sub (objectClass=inetOrgPerson)",
            "ou=nowhere,dc=shop,dc=test sub (objectclass=*)",
        ]
        failed = [(row["response_code"], row["response_exception"]) for row in rows if row["response_status"] == 4]
        assert failed == [(49, "invalidCredentials"), (32, "noSuchObject")]
        assert {row["response_status"] for row in rows} == {0, 4}
        assert "geheim" not in str(rows)
        secured = seen.rows(TLS, point)
        assert [(row["request_type"], row["response_status"]) for row in secured] == [("ClientHello", 0)]
    assert {row["l7_protocol"] for row in seen.others(LDAP)} == {TLS}
