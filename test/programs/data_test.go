// SPDX-License-Identifier: Apache-2.0

package programs

func dataServers() []program {
	return []program{
		{
			name: "mariadb", listen: 3306,
			start: `mariadb-install-db --no-defaults --user=root --datadir=$DIR/data --skip-test-db >/dev/null &&
				printf '%s\n' "create user u@'%' identified by 'p';" "grant all on *.* to u@'%';" >init.sql &&
				exec mariadbd --no-defaults --user=root --skip-name-resolve --datadir=$DIR/data --socket=$DIR/socket --innodb-log-file-size=4M --init-file=$DIR/init.sql`,
			ports: []port{{name: "mysql", number: 3306}, {number: 3306}, {name: "db", number: 13306}},
			calls: []call{
				{run: `mariadb --no-defaults -h $HOST -P $PORT -u u -pp -e 'select 1+1'`, want: "2"},
				{run: `mariadb --no-defaults -h $HOST -P $PORT -u u -pp -e "select repeat('x',1000000)" | wc -c`, want: "10"},
				{run: `mariadb --no-defaults -h $HOST -P $PORT -u u -pwrong -e 'select 1' 2>&1 | grep -o 'ERROR 1045'`, want: "1045"},
			},
		},
		{
			name: "postgresql", listen: 5432,
			start: `chown postgres . && exec setpriv --reuid postgres --regid postgres --clear-groups sh -c '
				initdb -A trust -U postgres -N -D $DIR/data >/dev/null && echo host all all all trust >>data/pg_hba.conf &&
				exec postgres -D $DIR/data -c listen_addresses=* -c unix_socket_directories= -c fsync=off'`,
			ports: []port{{name: "postgresql", number: 5432}, {number: 5432}, {name: "db", number: 15432}},
			calls: []call{
				{run: `psql -Atc 'select 1+1' -h $HOST -p $PORT -U postgres`, want: "2"},
				{run: `psql -Atc 'select generate_series(1, 20000)' -h $HOST -p $PORT -U postgres | tail -1`, want: "20000"},
				{run: `pg_isready -h $HOST -p $PORT | grep -o accepting`, want: "accepting"},
			},
		},
		{
			name: "redis", listen: 6379, start: `exec redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save ""`,
			ports: []port{{name: "redis", number: 6379}, {number: 6379}, {name: "cache", number: 16379}},
			calls: []call{
				{run: `redis-cli -h $HOST -p $PORT PING`, want: "PONG"},
				{run: `head -c 500000 /dev/zero | tr '\0' x | redis-cli -h $HOST -p $PORT -x set key; redis-cli -h $HOST -p $PORT strlen key`, want: "500000"},
				{run: `printf 'PING\r\n' | nc.openbsd -N $HOST $PORT`, want: "PONG"},
				{run: `printf 'PING\r\nQUIT\r\n' | nc.traditional $HOST $PORT`, want: "PONG"},
			},
		},
		{
			name: "memcached", listen: 11211, start: `exec memcached -u nobody -p 11211`,
			ports: []port{{name: "memcached", number: 11211}, {number: 11211}, {name: "cache", number: 11311}},
			calls: []call{
				{run: `printf 'set k 0 0 5\r\nhello\r\nget k\r\nquit\r\n' | nc.openbsd $HOST $PORT`, want: "hello"},
				{run: `printf 'get k\r\nquit\r\n' | nc.traditional $HOST $PORT`, want: "hello"},
			},
		},
		{
			name: "etcd", listen: 2379,
			start: `exec etcd --data-dir data --unsafe-no-fsync --log-level error --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://127.0.0.1:2379`,
			ports: []port{{name: "client", number: 2379}, {name: "http", number: 2379}, {name: "grpc", number: 2379}, {name: "api", number: 12379}},
			calls: []call{
				{run: `curl -sS http://$HOST:$PORT/version | grep -o etcdcluster`, want: "etcdcluster"},
				{run: `curl -sS http://$HOST:$PORT/v3/kv/put -d '{"key":"Zm9v","value":"YmFy"}' | grep -o raft_term`, want: "raft_term"},
				{run: `etcdcall $HOST:$PORT`, want: "1 found"},
			},
		},
		{
			name: "nats", listen: 4222, start: `exec nats-server -a 0.0.0.0 -p 4222`,
			ports: []port{{name: "nats", number: 4222}, {name: "client", number: 4222}, {number: 14222}},
			calls: []call{
				{run: `natscall $HOST:$PORT`, want: "answer to question"},
				{run: `(printf 'PING\r\n'; sleep 0.1) | nc.openbsd -N $HOST $PORT | grep -o PONG`, want: "PONG"},
			},
		},
		{
			name: "mosquitto", listen: 1883,
			start: `printf 'listener 1883\nallow_anonymous true\nuser root\n' >conf && exec mosquitto -c conf`,
			ports: []port{{name: "mqtt", number: 1883}, {number: 1883}, {name: "broker", number: 11883}},
			calls: []call{
				{run: `mosquitto_pub -h $HOST -p $PORT -t topic -m message -r -q 1 && echo sent`, want: "sent"},
				{run: `mosquitto_sub -h $HOST -p $PORT -t topic -C 1`, want: "message"},
			},
		},
		{
			name: "slapd", listen: 389,
			start: `mkdir data && slapadd -q -f $TESTDATA/slapd.conf -l $TESTDATA/example.ldif && exec slapd -d 0 -f $TESTDATA/slapd.conf -h ldap://0.0.0.0:389`,
			ports: []port{{name: "ldap", number: 389}, {number: 389}, {name: "directory", number: 1389}},
			calls: []call{
				{run: `ldapwhoami -x -H ldap://$HOST:$PORT`, want: "anonymous"},
				{run: `ldapsearch -x -LLL -H ldap://$HOST:$PORT -b dc=example,dc=org cn=one`, want: "an entry"},
				{run: `ldapmodify -x -H ldap://$HOST:$PORT -D cn=admin,dc=example,dc=org -w wrong </dev/null 2>&1`, want: "Invalid credentials", fails: true},
			},
		},
	}
}
