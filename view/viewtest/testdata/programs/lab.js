// SPDX-License-Identifier: Apache-2.0
// lab.js fetch URL | post URL FILE | udp HOST PORT TEXT | serve PORT FILE
// The server is a cluster: the primary accepts and hands the connections to two
// workers.
const cluster = require("cluster"), crypto = require("crypto"), dgram = require("dgram"), dns = require("dns");
const fs = require("fs"), http = require("http"), https = require("https");
const [verb, ...args] = process.argv.slice(2);
const sum = data => crypto.createHash("sha256").update(data).digest("hex");
const fail = e => { console.error(e.code || e.message); process.exit(1); };

function body(stream, done) {
	const parts = [];
	stream.on("data", d => parts.push(d)).on("end", () => done(Buffer.concat(parts))).on("error", fail);
}

const verbs = {
	fetch: url => (url.startsWith("https") ? https : http).get(url, r => body(r, b => console.log(sum(b)))).on("error", fail),
	post: (url, file) => {
		const q = http.request(url, {method: "POST"}, r => body(r, b => process.stdout.write(b)));
		fs.createReadStream(file).pipe(q.on("error", fail));
	},
	udp: (host, port, text) => dns.lookup(host, (e, address, family) => {
		if (e) return fail(e);
		const s = dgram.createSocket("udp" + family).on("error", fail);
		s.on("message", m => { console.log(String(m)); s.close(); });
		s.send(text, port, address);
	}),
	serve: (port, file) => {
		if (cluster.isPrimary) {
			cluster.fork(); cluster.fork();
			const s = dgram.createSocket("udp6").on("message", (m, from) => s.send(String(m).toUpperCase(), from.port, from.address));
			return s.bind(port);
		}
		http.createServer((q, r) => {
			if (q.method === "POST") return body(q, b => r.end(sum(b) + "\n"));
			if (q.url === "/big") return fs.createReadStream(file).pipe(r);
			r.end(q.socket.remoteAddress.replace("::ffff:", "") + "\n");
		}).listen(port, "::");
	},
};
verbs[verb](...args);
