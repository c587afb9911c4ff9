package userdb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// userdbd asks systemd's user database (systemd-userdbd.service(8)): Varlink on a Unix socket, that is JSON objects each
// ended by a NUL. Interface io.systemd.UserDatabase, https://systemd.io/USER_GROUP_API.
type userdbd struct{ socket string }

func (userdbd) nss() bool { return true } // the multiplexer asks NSS as well, and lets one "not found" win over failures

const (
	varlinkNotFound   = "io.systemd.UserDatabase.NoRecordFound"
	varlinkBadRequest = "org.varlink.service.InvalidParameter"
	varlinkService    = "io.systemd.Multiplexer"
	maxReplies        = 1 << 20 // to a question with several; the kernel's bound on groups of a process is 65536
)

// varlinkReply is every kind of reply at once.
type varlinkReply struct {
	Error      string `json:"error"`
	Continues  bool   `json:"continues"`
	Parameters struct {
		Record    *userdbRecord `json:"record"`
		UserName  string        `json:"userName"`
		GroupName string        `json:"groupName"`
		Parameter string        `json:"parameter"` // the one that an error is about
	} `json:"parameters"`
}

// userdbRecord is what we need of a JSON user or group record (https://systemd.io/USER_RECORD).
type userdbRecord struct {
	UserName      string                  `json:"userName"`
	Aliases       []string                `json:"aliases"`
	GroupName     string                  `json:"groupName"`
	UID           *uint32                 `json:"uid"`
	GID           *uint32                 `json:"gid"`
	HomeDirectory string                  `json:"homeDirectory"`
	Binding       map[string]userdbRecord `json:"binding"` // by machine id: what systemd-homed chose on that machine
}

func (d userdbd) account(ctx context.Context, name string) (*account, error) {
	replies, err := d.call(ctx, "GetUserRecord", map[string]any{"userName": name}, false)
	if err != nil || len(replies) == 0 {
		return nil, err
	}
	r := replies[0].Parameters.Record
	if r == nil {
		return nil, d.errorf("the answer has no record")
	}
	if r.UserName != name && !slices.Contains(r.Aliases, name) {
		return nil, d.errorf("asked for %+q, it answered for %+q", name, clip(r.UserName))
	}
	id, _ := os.ReadFile("/etc/machine-id")
	acc := r.account(strings.TrimSpace(string(id)))
	if acc == nil {
		return nil, d.errorf("the record of %+q has no uid", name)
	}
	return acc, nil
}

// accounts asks for every record (the method without a name), which systemd collects from all its services.
func (d userdbd) accounts(ctx context.Context) (all []account, err error) {
	replies, err := d.call(ctx, "GetUserRecord", map[string]any{}, true)
	id, _ := os.ReadFile("/etc/machine-id")
	for _, m := range replies {
		if m.Parameters.Record == nil {
			continue
		}
		if acc := m.Parameters.Record.account(strings.TrimSpace(string(id))); acc != nil {
			all = append(all, *acc)
		}
	}
	return all, err
}

// account is what a record says on a machine; nil: it has no uid.
func (r *userdbRecord) account(machine string) *account {
	if machine != "" {
		b := r.Binding[machine]
		if b.UID != nil {
			r.UID = b.UID
		}
		if b.GID != nil {
			r.GID = b.GID
		}
		if b.HomeDirectory != "" {
			r.HomeDirectory = b.HomeDirectory
		}
	}
	if r.UID == nil {
		return nil
	}
	acc := &account{name: r.UserName, uid: *r.UID, gid: *r.UID, home: r.HomeDirectory} // as systemd: gid defaults to uid
	if r.GID != nil {
		acc.gid = *r.GID
	}
	return acc
}

func (d userdbd) groups(ctx context.Context, name string) ([]uint32, error) {
	replies, err := d.call(ctx, "GetMemberships", map[string]any{"userName": name}, true)
	if err != nil {
		return nil, err
	}
	var gids []uint32
	for _, m := range replies {
		found, err := d.call(ctx, "GetGroupRecord", map[string]any{"groupName": m.Parameters.GroupName}, false)
		if err != nil {
			return nil, err
		}
		// A membership in a group that does not exist here is to be ignored, says USER_RECORD of memberOf.
		if len(found) == 1 && found[0].Parameters.Record != nil && found[0].Parameters.Record.GID != nil {
			gids = append(gids, *found[0].Parameters.Record.GID)
		}
	}
	return gids, nil
}

// call gives the replies to one method. None at all: no record was found.
func (d userdbd) call(ctx context.Context, method string, parameters map[string]any, more bool) ([]varlinkReply, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", d.socket)
	if err != nil {
		return nil, fmt.Errorf("systemd user database: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	parameters["service"] = varlinkService
	request := map[string]any{"method": "io.systemd.UserDatabase." + method, "parameters": parameters}
	if more {
		request["more"] = true
	}
	data, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	fail := func(err error) ([]varlinkReply, error) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, d.errorf("%s: %w", method, err)
	}
	if _, err := conn.Write(append(data, 0)); err != nil {
		return fail(err)
	}
	in := bufio.NewReaderSize(conn, 4096)
	var replies []varlinkReply
	for range maxReplies {
		data, err := readVarlink(in)
		if err != nil {
			return fail(err)
		}
		r, err := parseVarlink(data)
		switch {
		case err != nil:
			return fail(err)
		case r.Error == varlinkNotFound,
			r.Error == varlinkBadRequest && r.Parameters.Parameter == "userName": // no user can have such a name
			return replies, nil
		case r.Error != "":
			return fail(fmt.Errorf("it answered %+q", clip(r.Error)))
		}
		replies = append(replies, r)
		if !r.Continues {
			return replies, nil
		}
		if !more {
			return fail(errors.New("more than one reply"))
		}
	}
	return fail(fmt.Errorf("more than %d replies", maxReplies))
}

func (d userdbd) errorf(format string, args ...any) error {
	return fmt.Errorf("systemd user database "+d.socket+": "+format, args...)
}

// readVarlink reads one message, without its NUL.
func readVarlink(in *bufio.Reader) ([]byte, error) {
	var msg []byte
	for {
		part, err := in.ReadSlice(0)
		msg = append(msg, part...)
		switch {
		case len(msg) > maxAnswer:
			return nil, fmt.Errorf("answer is longer than %d octets", maxAnswer)
		case err == nil:
			return msg[:len(msg)-1], nil
		case err != bufio.ErrBufferFull:
			return nil, fmt.Errorf("answer is cut short after %d octets: %w", len(msg), err)
		}
	}
}

func parseVarlink(data []byte) (r varlinkReply, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("answer is not what it should be: %w", err)
	}
	return r, nil
}
