package services

import (
	"context"
	"errors"
	"fmt"
	"slices"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

func expectedClickHouse(opts *chgo.Options) expected {
	return expected{
		flag: "--clickhouse", protocol: protocolClickHouse, secure: opts.TLS != nil,
		port:   "the native one is 9000 by default, 9440 with TLS; 8123 is for HTTP",
		addTLS: "add ?secure=true to --clickhouse", dropTLS: "leave secure=true out of --clickhouse",
	}
}

// Error codes of ClickHouse.
const (
	chUnknownUser    = 192
	chAuthentication = 516
)

// OpenClickHouse connects as the roles do, without a database, and returns a connection once ClickHouse has let it in.
func OpenClickHouse(ctx context.Context, dsn string) (driver.Conn, *Problem) {
	opts, err := chgo.ParseDSN(dsn)
	if err != nil || len(opts.Addr) == 0 || opts.Addr[0] == "" {
		return nil, Permanent("the address cannot be read", "want --clickhouse clickhouse://USER:PASSWORD@HOST:9000/DATABASE")
	}
	reachable, p := firstReachable(ctx, "--clickhouse", opts.Addr)
	if p != nil {
		return nil, p
	}
	opts.Auth.Database = ""
	opts.DialTimeout, opts.ReadTimeout = Timeout, 2*Timeout
	conn, err := chgo.Open(opts)
	if err == nil {
		var about *driver.ServerVersion
		err = expectedClickHouse(opts).call(ctx, reachable, func(ctx context.Context) (err error) {
			if err = conn.Ping(ctx); err == nil {
				about, err = conn.ServerVersion()
			}
			return err
		})
		if err == nil {
			if p = clickHouseTooOld(reachable, about.Version.Major, about.Version.Minor); p == nil {
				return conn, nil
			}
			_ = conn.Close()
			return nil, p
		}
		_ = conn.Close()
	}
	return nil, clickHouseProblem(ctx, reachable, opts, err)
}

// leastClickHouse is the first version that passes the deduplication token of an insert on to the tables behind
// materialized views. In older versions a repeated insert counts twice there.
var leastClickHouse = [2]uint64{24, 8}

// clickHouseTooOld says that a version is too old; nil: it is not.
func clickHouseTooOld(addr string, major, minor uint64) *Problem {
	if major > leastClickHouse[0] || major == leastClickHouse[0] && minor >= leastClickHouse[1] {
		return nil
	}
	return Permanent(fmt.Sprintf("%s is ClickHouse version %d.%d", addr, major, minor),
		fmt.Sprintf("use ClickHouse %d.%d or newer: in older versions a repeated insert counts twice", leastClickHouse[0], leastClickHouse[1]))
}

// chTransient are the error codes of conditions that pass: time-outs and network errors between nodes, too many
// queries, no memory or threads, a Keeper that is away, tables that are read-only or still loading, a server that shuts
// down, a replica that is behind.
var chTransient = []int32{159, 202, 209, 210, 225, 236, 241, 242, 279, 319, 394, 425, 439, 999}

// ClickHouseMayPass reports whether an error of ClickHouse may go away while one waits.
func ClickHouseMayPass(err error) bool {
	if refused, ok := errors.AsType[*chgo.Exception](err); ok {
		return slices.Contains(chTransient, refused.Code)
	}
	return connectionBroke(err)
}

// clickHouseProblem describes an error of connecting.
func clickHouseProblem(ctx context.Context, addr string, opts *chgo.Options, err error) *Problem {
	if refused, ok := errors.AsType[*chgo.Exception](err); ok {
		switch refused.Code {
		case chAuthentication, chUnknownUser:
			return Permanent(fmt.Sprintf("%s refuses user %q or the password", addr, opts.Auth.Username), "correct them in --clickhouse clickhouse://USER:PASSWORD@"+addr)
		default:
			p := Permanent(fmt.Sprintf("%s refuses us (%s)", addr, OneLine(refused.Message)), "do what it says; see the log of ClickHouse")
			if ClickHouseMayPass(err) {
				p.Wait = WaitLong
			}
			return p
		}
	}
	if opts.TLS != nil {
		if p := tlsProblem(addr, expectedClickHouse(opts).dropTLS, err); p != nil {
			return p
		}
	}
	if p := expectedClickHouse(opts).problem(ctx, addr); p != nil {
		return p
	}
	return transient(fmt.Sprintf("%s does not answer as it should (%s)", addr, reason(err)), "see the log of ClickHouse")
}
