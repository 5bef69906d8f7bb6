module antiphon.dev/antiphon

go 1.24
