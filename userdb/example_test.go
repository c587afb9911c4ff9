package userdb_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lmtpd/lmtpd/userdb"
)

// A site with a file of virtual users, and the login accounts of the machine for one domain.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "users")
	if err := os.WriteFile(path, []byte("bob@example.com:{SHA512-CRYPT}...:5000:5000::/srv/mail/bob\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	rules := userdb.Rules{Delimiter: "+", FoldCase: true}
	file, err := userdb.NewPasswdFile(path, userdb.PasswdFileOptions{FoldCase: rules.FoldCase})
	if err != nil {
		fmt.Println(err) // FILE:LINE: what is wrong; what to do about it
		return
	}
	users := userdb.Chain{
		{Database: file},
		{Database: &userdb.System{}, Domains: []string{"localhost"}},
	}

	for _, s := range []string{"Bob+Lists@Example.COM", "ann@example.com", "ann@example.net", "\x00@example.com"} {
		addr, err := rules.ParseString(s)
		if err != nil {
			fmt.Println("501 5.1.3", err)
			continue
		}
		user, err := users.Lookup(context.Background(), addr)
		switch {
		case err == nil:
			fmt.Println("250 2.1.5", user.Name, user.Home, user.Owner.UID, addr.Detail)
		case errors.Is(err, userdb.ErrNoSuchDomain):
			fmt.Println("550 5.1.2", err)
		case errors.Is(err, userdb.ErrNoSuchUser):
			fmt.Println("550 5.1.1", err)
		default:
			fmt.Println("451 4.3.0", err)
		}
	}
	// Output:
	// 250 2.1.5 bob@example.com /srv/mail/bob 5000 Lists
	// 550 5.1.1 ann@example.com: no such user
	// 550 5.1.2 ann@example.net: no such domain: no such user
	// 501 5.1.3 bad address "\x00@example.com": local part holds a control octet
}
