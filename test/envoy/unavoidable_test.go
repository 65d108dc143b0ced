// SPDX-License-Identifier: Apache-2.0

package envoy

// The known differences between a call through Envoy and one without it, for
// TestUnavoidable. README.md tells users of them. Those of targets and of answers are in
// files of their own.

func rewrittenRequests() []wireCase {
	return []wireCase{
		{
			name:     "host comes first",
			why:      "Envoy keeps Host apart from the other headers and writes it first",
			request:  "GET / HTTP/1.1\r\nA: b\r\nHost: web\r\nC: d\r\n\r\n",
			seen:     "GET / HTTP/1.1\r\nHost: web\r\nA: b\r\nC: d\r\n\r\n",
			response: answer,
		},
		{
			name:     "headers about the connection",
			why:      "they are about one connection, and there are two",
			request:  get11("/", "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers, deflate\r\nA: b\r\n"),
			seen:     get11("/", "TE: trailers\r\nA: b\r\n"),
			response: answer,
		},
		{
			name:     "transfer-encoding comes last",
			why:      "Envoy re-chunks",
			request:  "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n3;ext=1\r\nabc\r\n0\r\n\r\n",
			seen:     "POST / HTTP/1.1\r\nHost: web\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
			response: answer,
		},
		{
			name:     "trailers are in lower case",
			why:      "Envoy keeps the case of headers only",
			request:  "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: v\r\n\r\n",
			seen:     "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-t: v\r\n\r\n",
			response: answer,
		},
		{
			name:     "a header on two lines",
			why:      "RFC 9112 wants it refused or, as here, joined by a space",
			request:  get11("/", "A: b\r\n c\r\n"),
			seen:     get11("/", "A: b c\r\n"),
			response: answer,
		},
		{
			name:     "white space around values",
			why:      "it is no part of the value",
			request:  "GET / HTTP/1.1\r\nHost:web\r\nA:   b  \r\nE:\r\n\r\n",
			seen:     "GET / HTTP/1.1\r\nHost: web\r\nA: b\r\nE: \r\n\r\n",
			response: answer,
		},
		{
			name:     "one name in two cases",
			why:      "Envoy remembers one spelling of a name",
			request:  get11("/", "x-y: 1\r\nX-Y: 2\r\n"),
			seen:     get11("/", "x-y: 1\r\nx-y: 2\r\n"),
			response: answer,
		},
		{
			name:     "lists in well-known headers",
			why:      "Envoy joins repeated headers of some names with a comma, which means the same",
			request:  get11("/", "Accept: a\r\nB: c\r\nAccept: d\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n"),
			seen:     get11("/", "Accept: a,d\r\nB: c\r\nX-Forwarded-For: 1.1.1.1,2.2.2.2\r\n"),
			response: answer,
		},
		{
			name:     "bodies of no length",
			why:      "all methods but GET, HEAD, DELETE, TRACE and CONNECT get a Content-Length of 0, which means the same",
			request:  "OPTIONS / HTTP/1.1\r\nHost: web\r\n\r\n",
			seen:     "OPTIONS / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n",
			response: answer,
		},
		{
			name:     "upgrade comes last",
			why:      "Envoy lets only upgrades through that it knows by name, so the client's is put back at the end",
			request:  get11("/", "Connection: Upgrade\r\nUpgrade: websocket\r\nA: b\r\n"),
			seen:     get11("/", "Connection: Upgrade\r\nA: b\r\nUpgrade: websocket\r\n"),
			response: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nDate: x\r\n\r\n",
		},
		{
			name:     "upgrade to h2c",
			why:      "Envoy never takes it up, as most servers don't; HTTP/2 with prior knowledge works",
			request:  get11("/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nA: b\r\n"),
			seen:     get11("/", "A: b\r\n"),
			response: answer,
		},
		{
			name:     "upgrade to TLS in place",
			why:      "passed on, the mere offer would cost the connection after each request",
			request:  get11("/", "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\nA: b\r\n"),
			seen:     get11("/", "A: b\r\n"),
			response: answer,
		},
		{
			name: "our own headers",
			why:  "what a client sends as x-nodevoy- means nothing, and reaches nobody",
			request: get11("/", "x-nodevoy-destination: 10.96.1.99:80\r\nX-Nodevoy-Destination: 10.96.1.98:80\r\nX-NODEVOY-form: http HTTP/1.1 10.96.1.99:80\r\nx-nodevoy-upgrade: mine\r\nx-nodevoy-forwarded-proto: https\r\nx-nodevoy-envoy-upstream-rq-timeout-ms: 1\r\nx-nodevoy-envoy-internal: true\r\nx-nodevoy-any: 1\r\n"+
				"x-nodevoy-envoy-external-address: 10.96.1.99:80\r\nX-Nodevoy-Envoy-External-Address: 10.96.1.98:80\r\nX-NODEVOY-ENVOY-downstream-service-node: http HTTP/1.1 10.96.1.99:80\r\n"+
				"x-nodevoy-envoy-original-path: mine\r\nx-nodevoy-envoy-downstream-service-cluster: https\r\nA: b\r\n"),
			seen:     get11("/", "A: b\r\n"),
			response: answer,
		},
		{
			name:     "bare line feeds",
			why:      "Envoy reads them, and writes what the RFC says",
			request:  "GET / HTTP/1.1\nHost: web\n\n",
			seen:     get11("/", ""),
			response: answer,
		},
		{
			name:     "the host of an absolute URL wins",
			why:      "RFC 9112 says so",
			request:  "GET http://other.example/ HTTP/1.1\r\nHost: web\r\n\r\n",
			seen:     "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n\r\n",
			response: answer,
		},
		{
			name:     "the host of a tunnel",
			why:      "RFC 9112 wants both to be the same",
			request:  "CONNECT foo:443 HTTP/1.1\r\nHost: bar\r\n\r\n",
			seen:     "CONNECT foo:443 HTTP/1.1\r\nHost: foo:443\r\n\r\n",
			response: "HTTP/1.1 200 OK\r\nDate: x\r\n\r\nraw",
		},
		{
			name:     "a referrer with a fragment",
			why:      "RFC 9110 forbids it, and Envoy drops the header",
			request:  get11("/", "Referer: http://x/#y\r\nA: b\r\n"),
			seen:     get11("/", "A: b\r\n"),
			response: answer,
		},
		{
			name:     "an empty line first",
			declared: true,
			why:      "RFC 9112 wants it ignored",
			request:  "\r\n" + get11("/", ""),
			seen:     get11("/", ""),
			response: answer,
		},
		{
			name:     "an upgrade with chunks",
			why:      "Envoy takes what follows for the other protocol's",
			request:  "POST / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
			seen:     "POST / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
			response: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nDate: x\r\n\r\n",
		},
		{
			name:     "HTTP/1.0 without a host",
			declared: true, // The other frontend has another address.
			why:      "Envoy speaks HTTP/1.1 to servers, which must have a Host, the address the client called, and must say that they close",
			request:  "GET / HTTP/1.0\r\nA: b\r\n\r\n",
			seen:     "GET / HTTP/1.1\r\nHost: 10.96.1.10:80\r\nA: b\r\nConnection: close\r\n\r\n",
			response: answer,
			got:      "HTTP/1.0 200 OK\r\nDate: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi[EOF]",
		},
		{
			name:     "HTTP/1.0 with a host",
			why:      "Envoy speaks HTTP/1.1 to servers",
			request:  "GET / HTTP/1.0\r\nHost: web\r\nX-Forwarded-Proto: q\r\n\r\n",
			seen:     "GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-Proto: q\r\nConnection: close\r\n\r\n",
			response: "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
			got:      "HTTP/1.0 200 OK\r\nDate: x\r\nConnection: close\r\n\r\nhi[EOF]",
		},
		{
			name:     "HTTP/1.0 with keep-alive",
			why:      "Envoy speaks HTTP/1.1 to servers",
			request:  "GET / HTTP/1.0\r\nHost: web\r\nConnection: keep-alive\r\n\r\n",
			seen:     "GET / HTTP/1.1\r\nHost: web\r\n\r\n",
			response: answer,
			got:      "HTTP/1.0 200 OK\r\nDate: x\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi",
		},
	}
}

func rewrittenResponses() []wireCase {
	q := get11("/", "")
	return []wireCase{
		{
			name:     "a date is added",
			why:      "Envoy adds the one that a server without a clock leaves out",
			request:  q,
			response: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nhi",
			got:      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\nDate: " + date + "\r\n\r\nhi",
		},
		{
			name:     "headers about the server's connection",
			why:      "they are about one connection, and there are two",
			request:  q,
			response: "HTTP/1.1 200 OK\r\nDate: x\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
			got:      "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi",
		},
		{
			name:     "the server closes its connection",
			why:      "the client keeps its own: it is to Envoy",
			request:  q,
			response: "HTTP/1.1 200 OK\r\nDate: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
			got:      "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nhi",
		},
		{
			name:     "the client closes its connection",
			why:      "the server is told, and if it doesn't answer that it closes, too, Envoy does",
			request:  get11("/", "Connection: close\r\nA: b\r\n"),
			seen:     get11("/", "A: b\r\nConnection: close\r\n"),
			response: answer,
			got:      "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi[EOF]",
		},
		{
			name:     "transfer-encoding of a response comes last",
			why:      "Envoy re-chunks",
			request:  q,
			response: "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n2\r\nhi\r\n0\r\nX-U: v\r\n\r\n",
			got:      "HTTP/1.1 200 OK\r\nDate: x\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-u: v\r\n\r\n",
		},
		{
			name:     "an upgrade refused",
			why:      "Envoy trusts neither connection any more: the client may have begun to speak the other protocol",
			request:  get11("/", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
			response: "HTTP/1.1 400 Bad\r\nDate: x\r\nContent-Length: 2\r\n\r\nno",
			got:      "HTTP/1.1 400 Bad\r\nDate: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno[EOF]",
		},
		{
			name:     "a tunnel refused",
			why:      "Envoy trusts neither connection any more: the client may have begun to speak the other protocol",
			request:  "CONNECT foo:443 HTTP/1.1\r\nHost: foo:443\r\n\r\n",
			response: "HTTP/1.1 403 No\r\nDate: x\r\nContent-Length: 2\r\n\r\nno",
			got:      "HTTP/1.1 403 No\r\nDate: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
		},
		{
			name:     "lists in well-known response headers",
			why:      "Envoy joins repeated headers of some names with a comma, which means the same",
			request:  q,
			response: "HTTP/1.1 200 OK\r\nDate: x\r\nVary: a\r\nVary: b\r\nContent-Length: 2\r\n\r\nhi",
			got:      "HTTP/1.1 200 OK\r\nDate: x\r\nVary: a,b\r\nContent-Length: 2\r\n\r\nhi",
		},
		{
			name:     "no length in a response to HEAD",
			why:      "Envoy adds what it would add to a response to GET",
			request:  "HEAD / HTTP/1.1\r\nHost: web\r\n\r\n",
			response: "HTTP/1.1 200 OK\r\nDate: x\r\n\r\n",
			got:      "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		},
		{
			name:     "an answer before the body",
			why:      "Envoy does not wait for the rest of a body that nobody wants",
			request:  "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
			response: "HTTP/1.1 413 No\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
			got:      "HTTP/1.1 413 No\r\nDate: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		},
	}
}

// nobody is what a server sees of a request that does not reach it.
const nobody = "[no connection]"

// refusedRequests never reach a server that is declared to speak HTTP: Envoy
// answers them itself. All but the first two are against RFC 9110 or 9112.
func refusedRequests() []wireCase {
	const plain = "content-length: 11\r\ncontent-type: text/plain\r\ndate: " + date + "\r\nconnection: close\r\n\r\nBad Request[EOF]"
	const bare = "date: " + date + "\r\ncontent-length: 0\r\n\r\n"
	return []wireCase{
		{name: "options of the server as a whole", why: "Envoy takes only targets that begin with a slash", request: "OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 404 Not Found\r\n" + bare},
		{name: "transfer-encoding of two kinds", why: "Envoy knows chunked only", request: "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 501 Not Implemented\r\ncontent-length: 15\r\ncontent-type: text/plain\r\ndate: " + date + "\r\nconnection: close\r\n\r\nNot Implemented[EOF]"},
		{name: "length and chunks", why: "two lengths are how requests are smuggled", request: "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "no host", why: "RFC 9112 wants it refused", request: "GET / HTTP/1.1\r\nA: b\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + bare},
		{name: "a fragment in the path", why: "fragments are not for the wire", request: get11("/a#b", ""), seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + bare},
		{name: "a path of bytes that are not ASCII", why: "they must be escaped", request: get11("/\xc3\xa9", ""), seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "a path with a space", why: "it must be escaped", request: get11("/a b", ""), seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "a path without a slash", why: "there is no such form of request target", request: get11("x", ""), seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "two hosts", why: "RFC 9112 wants it refused", request: "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + bare},
		{name: "one host, twice", why: "RFC 9112 wants it refused", request: "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + bare},
		{name: "a host with a comma", why: "that is how Envoy shows two hosts", request: "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + bare},
		{name: "two hosts in HTTP/1.0", why: "RFC 9112 wants it refused", request: "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.0 400 Bad Request\r\ndate: " + date + "\r\nconnection: close\r\ncontent-length: 0\r\n\r\n[EOF]"},
		{name: "two lengths", why: "RFC 9112 wants it refused", request: "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "one length, twice", why: "RFC 9110 wants it refused or joined", request: "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "a length that is no number", why: "RFC 9112 wants it refused", request: "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: +3\r\n\r\nabc", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "a line before the first header", why: "RFC 9112 wants it refused", request: "GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "a space before the colon", why: "RFC 9112 wants it refused", request: get11("/", "A : b\r\n"), seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "control bytes in a value", why: "RFC 9110 wants them refused", request: get11("/", "User-Agent: a\x1b[2Jb\r\n"), seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "quotes in a method", why: "there is no such method", request: "G\"T / HTTP/1.1\r\nHost: web\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "a tab in the path", why: "it must be escaped", request: get11("/a\tb", ""), seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
		{name: "a host with a space", why: "there is no such host", request: "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", seen: nobody, declared: true, got: "HTTP/1.1 400 Bad Request\r\n" + plain},
	}
}
