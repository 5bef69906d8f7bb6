package antiphon

// By default the paths come from CGO_CFLAGS and CGO_LDFLAGS. -l: takes the archive where the shared library lies beside it;
// Apple's linker does not know it.

// #cgo !antiphon_pkgconfig,!antiphon_static LDFLAGS: -lantiphon
// #cgo antiphon_pkgconfig pkg-config: antiphon
// #cgo antiphon_static,linux LDFLAGS: -l:libantiphon.a -lm -ldl -lpthread
// #cgo antiphon_static,!linux LDFLAGS: -lantiphon -lm -lpthread
import "C"
