#!/usr/bin/python3
"""The admin port over TLS: who is let in, certificates that change while it runs, and clients that speak something else or too slowly.

Usage: admin_tls_test.py PROGRAM
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile

PROGRAM = os.path.abspath(sys.argv[1])
LONG = 600


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def path(name):
    return os.path.join(work, name)


def certificate(name):
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path(name + ".key"), "-out",
        path(name + ".pem"), "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")


def use(certificate_of, key_of):
    """What the server reads when it is asked to."""
    shutil.copy(path(certificate_of + ".pem"), path("now.pem"))
    shutil.copy(path(key_of + ".key"), path("now.key"))


class Server:
    def __init__(self, *arguments):
        self.log_file = open(path("log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--queue-ms", "600000", "--model", path("model"), *arguments],
                                        stdout=subprocess.PIPE, stderr=self.log_file, text=True)
        self.process.stdout.readline()
        scheme, self.port = re.fullmatch(r"admin on (https?)://127.0.0.1:(\d+)/\n", self.process.stdout.readline()).groups()
        assert scheme == "https"

    def log(self):
        with open(path("log"), encoding="utf-8") as file:
            return file.read()

    def hang_up(self, words):
        """SIGHUP; until the log has one more line with these words."""
        before = self.log().count(words)
        self.process.send_signal(signal.SIGHUP)
        while self.log().count(words) == before:
            assert self.process.poll() is None, self.log()

    def connect(self, trusted):
        context = ssl.create_default_context(cafile=path(trusted + ".pem"))
        return http.client.HTTPSConnection("127.0.0.1", int(self.port), timeout=LONG, context=context)

    def stop(self):
        self.process.terminate()
        assert self.process.wait() == 0
        return self.log()


def ask(connection, method="GET", where="/readyz", body=None, **headers):
    connection.request(method, where, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def refuses(server, trusted):
    try:
        ask(server.connect(trusted))
    except ssl.SSLCertVerificationError:
        return True
    return False


def main():
    run(PROGRAM, "synth", "--rows", "500", "--seed", "1", "--out", path("log.tsv"))
    run(PROGRAM, "train", "--schema", "criteo", "--model", "lr", "--train", path("log.tsv"), "--out", path("model"))
    certificate("one")
    certificate("two")
    use("one", "one")
    with open(path("tokens"), "w", encoding="utf-8") as file:
        file.write("a-secret\n")
    for wrong, words in ((["--admin", "127.0.0.1:0", "--admin-tls-cert", path("one.pem")], "belong together"),
                         (["--admin-tls-cert", path("one.pem"), "--admin-tls-key", path("one.key")], "--admin HOST:PORT")):
        done = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--model", path("model"), *wrong], stderr=subprocess.PIPE, text=True)
        assert done.returncode == 2 and words in done.stderr, done
    done = subprocess.run([PROGRAM, "serve", "--listen", "127.0.0.1:0", "--model", path("model"), "--admin", "127.0.0.1:0", "--admin-tls-cert",
                           path("one.pem"), "--admin-tls-key", path("two.key")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert done.returncode == 1 and "key do not match" in done.stderr.splitlines()[-1], done

    server = Server("--admin", "127.0.0.1:0", "--admin-tls-cert", path("now.pem"), "--admin-tls-key", path("now.key"), "--token-file", path("tokens"))
    kept = server.connect("one")
    assert ask(kept) == (200, b"ready\n")
    # Over TLS a token is asked for as without.
    body = run(PROGRAM, "example", "--model", path("model"))
    assert ask(kept, "POST", "/v1/score", body)[0] == 401
    status, answer = ask(kept, "POST", "/v1/score", body, Authorization="Bearer a-secret")
    assert status == 200 and len(json.loads(answer)["outputs"][0]["probabilities"]) == 3, answer
    assert refuses(server, "two")

    # Who speaks no TLS is hung up on, and hears nothing.
    with socket.create_connection(("127.0.0.1", int(server.port)), timeout=LONG) as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        heard = b"".join(iter(lambda: plain.recv(4096), b""))
        assert b"HTTP" not in heard and b"clicktower" not in heard, heard
    # Handshakes that stop half way keep nobody waiting.
    slow = [socket.create_connection(("127.0.0.1", int(server.port)), timeout=LONG) for _ in range(20)]
    for number, connection in enumerate(slow):
        connection.sendall(bytes.fromhex("1603010200010001fc0303")[:number % 12])
    assert ask(server.connect("one")) == (200, b"ready\n")

    # Another certificate: new connections see it, those that are there stay. One that can't be used changes nothing.
    use("two", "two")
    server.hang_up("event=serve.admin_certificate result=done")
    assert refuses(server, "one")
    assert ask(server.connect("two")) == (200, b"ready\n")
    assert ask(kept) == (200, b"ready\n")
    use("one", "two")
    server.hang_up("event=serve.admin_certificate result=refused reason=")
    assert ask(server.connect("two")) == (200, b"ready\n") and refuses(server, "one")
    use("one", "one")
    server.hang_up("event=serve.admin_certificate result=done")
    assert ask(server.connect("one")) == (200, b"ready\n") and ask(kept) == (200, b"ready\n")
    for connection in slow:
        connection.close()
    kept.close()
    log = server.stop()
    assert re.search(r'event=serve.admin address="127.0.0.1:\d+" tls=yes', log), log
    assert "a-secret" not in log and "PRIVATE" not in log
    print("the admin port speaks TLS")


if not shutil.which("openssl"):
    print("SKIP: no openssl to make certificates with")
    sys.exit(0)
with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as work:
    main()
