// SPDX-License-Identifier: Apache-2.0

package programs

import "slices"

// makePages is the shell command that makes the pages of a web server.
const makePages = `mkdir -p www && seq 1 100 >www/file && cp www/file www/file.txt && head -c 3000000 /dev/urandom >www/large &&
	echo index >www/index.html; `

// twoRequests is a client that sends two requests at once; the server ends the connection.
const twoRequests = `printf 'GET /file HTTP/1.1\r\nHost: x\r\n\r\nGET /file.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' `

// halfClose is what becomes of HTTP clients that end their direction before the answer.
const halfClose = "Envoy gives up the answer when an HTTP client closes its direction"

// webCalls are what any web server of pages is asked.
func webCalls() []call {
	return []call{
		{run: `curl -sS http://$HOST:$PORT/file | md5sum`, want: "-"},
		{run: `curl -sS -i http://$HOST:$PORT/file.txt`, want: "\n100\n", head: true},
		{run: `curl -sS -I http://$HOST:$PORT/file.txt`, want: "200", head: true},
		{run: `curl -sS http://$HOST:$PORT/large | cmp - $DIR/www/large && echo same`, want: "same", untimed: true},
		{run: `curl -sS --http1.0 http://$HOST:$PORT/file.txt`, want: "\n100\n"},
		{run: `curl -sS -i http://$HOST:$PORT/missing`, want: "404", head: true},
		{run: `curl -sS --compressed -w '%{http_code} %{num_connects}\n' http://$HOST:$PORT/file.txt http://$HOST:$PORT/file`, want: "200 0"},
		{run: `curl -sS -w '%{http_code}\n' --path-as-is -o /dev/null http://$HOST:$PORT/../file`, want: "\n"},
		{run: twoRequests + `| nc.openbsd $HOST $PORT | grep -cx 100`, want: "2"},
		{run: twoRequests + `| nc.traditional $HOST $PORT | grep -cx 100`, want: "2"},
		{run: `printf 'GET /file HTTP/1.0\r\n\r\n' | nc.traditional $HOST $PORT | tail -1`, want: "100"},
		{run: `printf 'GET /file HTTP/1.0\r\n\r\n' | nc.openbsd -N $HOST $PORT | tail -1`, want: "100", unlike: halfClose},
	}
}

// pageCalls are webCalls and what servers that serve parts of pages are asked.
func pageCalls() []call {
	return append(webCalls(),
		call{run: `curl -sS -i -r 5-9 http://$HOST:$PORT/file`, want: "206", head: true},
		call{run: `curl -sS -i -r 0-1,5-6 http://$HOST:$PORT/file | sed 's/boundary=.*//; s/^--.*//'`, want: "206", head: true},
		call{run: `tag=$(curl -sS -I http://$HOST:$PORT/file | sed -n 's/^ETag: \(.*\)\r/\1/p'); curl -sS -i -H "If-None-Match: $tag" http://$HOST:$PORT/file`, want: "304", head: true},
		call{run: `curl -sS -i -X DELETE http://$HOST:$PORT/file`, want: "405", head: true},
		call{run: `curl -sS -L -w '%{url_effective}\n' http://$HOST:$PORT/moved | tail -1`, want: "/file"},
	)
}

// bodyCalls are what any web server that answers with the body is sent.
func bodyCalls() []call {
	return []call{
		{run: `curl -sS -d a=b http://$HOST:$PORT/echo`, want: "a=b"},
		{run: `head -c 2000000 /dev/zero | curl -sS -T - http://$HOST:$PORT/echo | cmp -n 2000000 - /dev/zero && echo same`, want: "same", untimed: true},
		{run: `head -c 2000000 /dev/zero | curl -sS --data-binary @- -H 'Expect: 100-continue' http://$HOST:$PORT/echo |
			cmp -n 2000000 - /dev/zero && echo same`, want: "same", untimed: true},
		{run: `(printf 'one '; printf 'two ') | curl -sS -H 'Transfer-Encoding: chunked' --data-binary @- http://$HOST:$PORT/echo`, want: "one two"},
		{run: `curl -sS -F file=@/etc/hostname http://$HOST:$PORT/echo | wc -l`, want: "7"},
	}
}

// upgrades are clients that ask for another protocol by a path, and write a line in it
// that comes back, at some of the Services, as they take their time.
func upgrades(path, protocol string, only ...int32) []call {
	ask := `printf 'GET ` + path + ` HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ` + protocol + `\r\n\r\nhello\n'`
	return []call{
		{run: `(` + ask + `; sleep 0.2) | nc.openbsd -N $HOST $PORT | tail -1`, want: "hello", untimed: true, only: only},
		{run: `(` + ask + `; sleep 0.2) | nc.traditional -q 0 $HOST $PORT | tail -1`, want: "hello", untimed: true, only: only},
		{run: ask + ` | nc.openbsd -N $HOST $PORT | tail -1`, want: "hello", unlike: halfClose, only: only},
	}
}

func webServers() []program {
	return []program{
		{
			name: "nginx", listen: 80,
			start: makePages + `mkdir -p temp && chmod 755 . && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout key.pem -out cert.pem 2>/dev/null &&
				cat key.pem cert.pem >tls.pem && cp $TESTDATA/nginx.conf conf && exec nginx -p $DIR/ -e stderr -c $DIR/conf`,
			ports: []port{{name: "http", number: 80}, {number: 80}, {name: "web", number: 8080}, {name: "site", number: 7778, app: "http"}},
			calls: append(pageCalls(),
				call{run: `curl -sS "http://$HOST:$PORT/args?a=%20b&c" -H 'Host: a.example:81'`, want: "GET /args?a=%20b&c a.example:81"},
				call{run: `curl -sS --path-as-is http://$HOST:$PORT/slash/a//b/../c/%2e`, want: "/slash"},
				call{run: `head -c 2000000 /dev/zero | curl -sS -o /dev/null -w '%{http_code}\n' -T - http://$HOST:$PORT/early`, want: "413", untimed: true},
				call{run: `curl -sS --http2 -w '%{http_version}\n' -o /dev/null http://$HOST:$PORT/file`, want: "1.1"},
				call{run: `h2load --h1 -n 200 -c 4 http://$HOST:$PORT/file | grep -o '200 succeeded, 0 failed'`, want: "200", untimed: true},
			),
		},
		{
			name: "nginxtls", listen: 443, start: `sed s,tls.pem,$DIR/../nginx/tls.pem,g $TESTDATA/nginx.conf >conf; ` + makePages +
				`mkdir -p temp; while ! [ -s ../nginx/tls.pem ]; do sleep 0.1; done; exec nginx -p $DIR/ -e stderr -c $DIR/conf`,
			ports: []port{{name: "https", number: 443}, {number: 443}, {name: "web", number: 8443}, {name: "http-metrics", number: 9443}, {name: "http", number: 9999}, {name: "web", number: 3000}},
			calls: []call{
				{run: `curl -sS -k https://$HOST:$PORT/file`, want: "100"},
				{run: `curl -sS -k https://$HOST:$PORT/large | cmp - $DIR/www/large && echo same`, want: "same", untimed: true},
			},
		},
		{
			name: "nginxh2", listen: 8081, start: makePages + `mkdir -p temp; sed 's/listen 443 ssl;//; /ssl_certificate/d' $TESTDATA/nginx.conf >conf && exec nginx -p $DIR/ -e stderr -c $DIR/conf`,
			ports: []port{{name: "http2", number: 80}, {name: "web", number: 80}, {number: 7777}, {name: "x", number: 8090, app: "kubernetes.io/h2c"}},
			calls: []call{
				{run: `curl -sS --http2-prior-knowledge -w '%{http_version}\n' http://$HOST:$PORT/file | tail -1`, want: "2"},
				{run: `nghttp -n -v http://$HOST:$PORT/file | grep -o ':status: .*'`, want: "200"},
				{run: `h2load -n 200 -c 2 -m 10 http://$HOST:$PORT/file | grep -o '200 succeeded, 0 failed'`, want: "200", untimed: true},
			},
		},
		{
			name: "apache", listen: 8080,
			start: makePages + `chmod 755 . && exec apache2 -D FOREGROUND -C "Define DIR $DIR" -f $TESTDATA/apache.conf`,
			ports: []port{{name: "http", number: 80}, {number: 8080}, {name: "frontend", number: 7777}},
			calls: pageCalls(),
		},
		{
			name: "python", listen: 8000, start: makePages + `exec /usr/bin/python3 -m http.server 8000 --directory www`,
			ports: []port{{name: "http", number: 80}, {number: 8000}, {name: "x", number: 7777}},
			calls: webCalls()[:6],
		},
		{
			name: "golang", listen: 8080, start: `exec httpserver :8080`,
			ports: []port{{name: "http", number: 80}, {number: 8080}, {name: "api", number: 7777}, {name: "x", number: 7778, app: "http"}},
			calls: slices.Concat(bodyCalls(), upgrades("/attach", "tcp", 80, 7778), []call{
				{run: `curl -sS -i http://$HOST:$PORT/a/b?c`, want: "/a/b?c", head: true},
				{run: `curl -sS -i -X PROPFIND http://$HOST:$PORT/a`, want: "PROPFIND", head: true},
				{run: `curl -sS --http2-prior-knowledge -d a=b -w '%{http_version}\n' http://$HOST:$PORT/echo`, want: "a=b2"},
				{run: `curl -sS -N http://$HOST:$PORT/stream`, want: "data: 2"},
				{run: `curl -sS --http1.0 http://$HOST:$PORT/stream`, want: "data: 2"},
				{run: `curl -sS --raw http://$HOST:$PORT/trailers | tail -2 | tr A-Z a-z`, want: "x-sum: 7"},
				{run: `nghttp -n -v http://$HOST:$PORT/trailers | grep -o 'x-sum: .*'`, want: "7"},
				{run: `h2load -n 200 -c 2 -m 10 http://$HOST:$PORT/a | grep -o '200 succeeded, 0 failed'`, want: "200", untimed: true},
			}),
		},
		{
			name: "node", listen: 3000, start: `exec node $TESTDATA/server.js 3000`,
			ports: []port{{name: "http", number: 80}, {number: 3000}, {name: "x", number: 7777}},
			calls: slices.Concat(bodyCalls(), upgrades("/", "echo", 3000), []call{
				{run: `curl -sS -i -N http://$HOST:$PORT/events`, want: "data: 2", head: true},
				{run: `curl -sS -i http://$HOST:$PORT/hints`, want: "103 Early Hints", head: true},
			}),
		},
		{
			name: "java", listen: 8080, start: `exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC $TESTDATA/Server.java 8080`,
			ports: []port{{name: "http", number: 80}, {number: 8080}, {name: "x", number: 7777}},
			calls: []call{
				{run: `curl -sS -i http://$HOST:$PORT/a`, want: "from java", head: true},
				{run: `curl -sS -I http://$HOST:$PORT/a`, want: "200", head: true},
				{run: `head -c 200000 /dev/zero | curl -sS -T - http://$HOST:$PORT/a | tail -1 | tr -d '\0'`, want: "from java"},
			},
		},
	}
}
