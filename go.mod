module github.com/lmtpd/lmtpd

go 1.26
