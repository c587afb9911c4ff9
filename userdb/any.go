package userdb

import "context"

// Any knows every address whose parts may name directories, and says ErrBadAddress to the others. No account owns its
// mail. It is for trying things out, and for sites whose MTA has asked its own tables: with it, a mistyped address gets a
// mailbox of its own.
type Any struct{}

// Lookup answers with a User whose Name is the address without detail. An address without domain is answered too.
func (Any) Lookup(_ context.Context, a Address) (*User, error) {
	if _, err := PathComponent(a.Local); err != nil {
		return nil, &BadAddressError{a.String(), "local part " + err.Error()}
	}
	if a.Domain != "" {
		if _, err := PathComponent(a.Domain); err != nil {
			return nil, &BadAddressError{a.String(), "domain " + err.Error()}
		}
	}
	return &User{Name: join(a.Local, a.Domain), Source: Any{}.String()}, nil
}

func (Any) String() string { return "any" }
