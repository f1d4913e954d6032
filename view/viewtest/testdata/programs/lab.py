# SPDX-License-Identifier: Apache-2.0
# lab.py fetch URL | post URL FILE | udp HOST PORT TEXT | serve PORT FILE
import hashlib, http.server, os, socket, sys, threading, urllib.request

verb, args = sys.argv[1], sys.argv[2:]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path != "/big":
            return self.answer(b"%s\n" % self.client_address[0].removeprefix("::ffff:").encode())
        with open(args[1], "rb") as f:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(f.fileno()).st_size))
            self.end_headers()
            self.wfile.flush()
            self.connection.sendfile(f)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(hashlib.sha256(body).hexdigest().encode() + b"\n")

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128

    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def echo(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    while True:
        data, sender = s.recvfrom(65536)
        s.sendto(data.upper(), sender)


if verb == "fetch":
    with urllib.request.urlopen(args[0], timeout=20) as r:
        print(hashlib.sha256(r.read()).hexdigest())
elif verb == "post":
    with open(args[1], "rb") as f:
        print(urllib.request.urlopen(urllib.request.Request(args[0], f.read(), method="POST"), timeout=20).read().decode(), end="")
elif verb == "udp":
    for family, kind, proto, _, addr in socket.getaddrinfo(args[0], int(args[1]), type=socket.SOCK_DGRAM):
        s = socket.socket(family, kind, proto)
        s.settimeout(5)
        s.sendto(args[2].encode(), addr)
        print(s.recvfrom(65536)[0].decode())
        break
elif verb == "serve":
    threading.Thread(target=echo, args=(int(args[0]),), daemon=True).start()
    Server(("::", int(args[0])), Handler).serve_forever()
