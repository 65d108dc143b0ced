// SPDX-License-Identifier: Apache-2.0

package envoy

// rewrittenTargets are differences in the target of a request, for TestUnavoidable.
func rewrittenTargets() []wireCase {
	const host, keep = "Host: o\r\n\r\n", "Host: o\r\nConnection: keep-alive\r\n\r\n"
	return []wireCase{
		{
			name:     "absolute URL in HTTP/1.0",
			why:      "Envoy speaks HTTP/1.1 to servers",
			request:  "GET http://o/x HTTP/1.0\r\n" + keep,
			seen:     "GET http://o/x HTTP/1.1\r\n" + host,
			response: answer,
			got:      "HTTP/1.0 200 OK\r\nDate: x\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi",
		},
		{
			name:     "user info in an absolute URL",
			why:      "Envoy keeps host, path and scheme of it; RFC 9110 has it dropped",
			request:  "GET http://u:p@o/x HTTP/1.1\r\n" + host,
			seen:     "GET http://o/x HTTP/1.1\r\n" + host,
			response: answer,
		},
		{
			name:     "absolute URL without a path",
			why:      "RFC 9112 wants a slash there",
			request:  "GET http://o HTTP/1.1\r\n" + host,
			seen:     "GET http://o/ HTTP/1.1\r\n" + host,
			response: answer,
		},
		{
			name:     "a scheme in upper case",
			why:      "it means the same",
			request:  "GET HTTP://o/x HTTP/1.1\r\n" + host,
			seen:     "GET http://o/x HTTP/1.1\r\n" + host,
			response: answer,
		},
	}
}

// refusedTargets never reach a server that is declared to speak HTTP.
func refusedTargets() []wireCase {
	const plain = "content-length: 11\r\ncontent-type: text/plain\r\ndate: " + date + "\r\nconnection: close\r\n\r\nBad Request[EOF]"
	const bare = "HTTP/1.1 404 Not Found\r\ndate: " + date + "\r\ncontent-length: 0\r\n\r\n"
	refused := func(name, why, target, got string) wireCase {
		return wireCase{name: name, why: why, request: target + " HTTP/1.1\r\nHost: o\r\n\r\n", seen: nobody, declared: true, got: got}
	}
	return []wireCase{
		refused("a query without a path", "Envoy routes paths that begin with a slash", "GET http://o?q", bare),
		refused("an ftp URL, as for a proxy", "Envoy's parser knows the schemes http and https", "GET ftp://o/x", "HTTP/1.1 400 Bad Request\r\n"+plain),
		refused("a ws URL, as for a proxy", "Envoy's parser knows the schemes http and https", "GET ws://o/x", "HTTP/1.1 400 Bad Request\r\n"+plain),
	}
}
