package main

import "errors"

func benchProtocol(o options) error { return errors.New("not yet") }
