#include "textflag.h"
#include "kernel_amd64.h"

// The walk of docs/CLASSIFIER.md in AVX-512: all keys of a burst go down a tree
// side by side, then each is compared with the boxes of its leaf, four at a time.

// Z24 are the guards of both words, Z25 is 0, K3 has the upper half of each box, K7
// the lower half of each of eight qwords.
#define CONSTANTS \
	VBROADCASTI32X4 guards<>(SB), Z24;  \
	VPXORQ          Z25, Z25, Z25;      \
	MOVL            $0xCC, AX;          \
	KMOVD           AX, K3;             \
	MOVL            $0x5555, AX;        \
	KMOVD           AX, K7

DATA guards<>+0(SB)/8, $(GUARDS-GUARD)
DATA guards<>+8(SB)/8, $GUARDS
GLOBL guards<>(SB), RODATA|NOPTR, $16

// KEY puts into Z30 the key at a place, and its negation, twice: added to two
// boxes, that is the key plus low and high minus the key.
#define KEY(place) \
	VBROADCASTI32X4 place, Z30;         \
	VPSUBQ          Z30, Z25, K3, Z30

// MATCH4 compares the key with the four boxes from R13 on: bit j of DX is set
// where it is inside box j, as all guards are.
#define MATCH4 \
	VPADDQ     (R13), Z30, Z20;         \
	VPADDQ     64(R13), Z30, Z21;       \
	VSHUFI64X2 $0x88, Z21, Z20, Z22;    \
	VSHUFI64X2 $0xDD, Z21, Z20, Z23;    \
	VPTERNLOGQ $0x2A, Z24, Z23, Z22;    \
	VPTESTNMQ  Z22, Z22, K1;            \
	KMOVB      K1, DX;                  \
	MOVL       DX, CX;                  \
	SHRL       $1, CX;                  \
	ANDL       CX, DX;                  \
	MOVL       $0x55, CX;               \
	PEXTL      CX, DX, DX

// STEP takes the eight keys with words w0 and w1 from cells d to the next ones,
// where live says that d is a table.
#define STEP(w0, w1, d, live) \
	VPTESTMQ   Z12, d, K6;          \
	VPBLENDMQ  w1, w0, K6, Z20;     \
	VPSRLQ     $32, d, Z21;         \
	VPANDQ     Z14, Z21, Z21;       \
	VPSRLVQ    Z21, Z20, Z20;       \
	VPSRLQ     $40, d, Z22;         \
	VPANDQ     Z22, Z20, Z20;       \
	VPADDD.Z   d, Z20, K7, Z15;     \
	VPGATHERQQ (DI)(Z15*8), live, d

// SPREAD loads eight keys, as far as there are some, and parts their words. K1
// has a bit for each qword of these keys and those behind; it moves on to the
// next eight.
#define SPREAD(lower, upper, w0, w1) \
	VMOVDQU64.Z lower(R8), K1, w0;     \
	KSHIFTRQ    $8, K1, K1;         \
	VMOVDQU64.Z upper(R8), K1, Z20; \
	KSHIFTRQ    $8, K1, K1;         \
	VMOVDQA64   w0, w1;             \
	VPERMT2Q    Z20, Z16, w0;       \
	VPERMT2Q    Z20, Z17, w1

DATA even<>+0(SB)/8, $0
DATA even<>+8(SB)/8, $2
DATA even<>+16(SB)/8, $4
DATA even<>+24(SB)/8, $6
DATA even<>+32(SB)/8, $8
DATA even<>+40(SB)/8, $10
DATA even<>+48(SB)/8, $12
DATA even<>+56(SB)/8, $14
GLOBL even<>(SB), RODATA|NOPTR, $64

// func burst512(cells []uint64, boxes []box, trees []tree, none uint32, keys []Key, out []Verdict)
//
//	Z0-Z3 word 0 of the keys, eight each   Z12 the bit for the word    Z13 the bit of leaves
//	Z4-Z7 word 1                           Z14 63                      Z8-Z11 the cells come to
TEXT ·burst512(SB), NOSPLIT, $264-128
	MOVQ cells_base+0(FP), DI
	MOVQ boxes_base+24(FP), SI
	MOVQ trees_base+48(FP), R11
	MOVQ trees_len+56(FP), R12
	MOVQ keys_base+80(FP), R8
	MOVQ out_base+104(FP), R9
	CONSTANTS

	MOVQ $-1, AX
	MOVQ keys_len+88(FP), BX
	BZHIQ BX, AX, CX
	MOVL CX, valid-264(SP) // a bit for each key
	KMOVD CX, K2
	ADDQ BX, BX
	BZHIQ BX, AX, CX
	KMOVQ CX, K1
	VMOVDQU64 even<>(SB), Z16
	VPTERNLOGQ $0xFF, Z17, Z17, Z17
	VPSUBQ Z17, Z16, Z17 // odd is even and 1
	SPREAD(0, 64, Z0, Z4)
	SPREAD(128, 192, Z1, Z5)
	SPREAD(256, 320, Z2, Z6)
	SPREAD(384, 448, Z3, Z7)

	MOVQ $(1<<38), AX
	VPBROADCASTQ AX, Z12
	MOVQ $(1<<63), AX
	VPBROADCASTQ AX, Z13
	MOVL $63, AX
	VPBROADCASTQ AX, Z14
	MOVL none+72(FP), AX
	VPBROADCASTD AX, Z18
	VMOVDQU32 Z18, K2, (R9)
	KSHIFTRD $16, K2, K2
	VMOVDQU32 Z18, K2, 64(R9)
	TESTQ R12, R12
	JZ end

tree:
	// The keys whose best rank is over the tree's lowest; 0 stands for no key.
	VPBROADCASTD 8(R11), Z18
	KMOVD valid-264(SP), K1
	VMOVDQU32.Z (R9), K1, Z19
	KSHIFTRD $16, K1, K1
	VMOVDQU32.Z 64(R9), K1, Z20
	VPCMPUD $6, Z18, Z19, K1
	VPCMPUD $6, Z18, Z20, K2
	KUNPCKWD K1, K2, K1
	KMOVD K1, AX
	TESTL AX, AX
	JZ next

	VPBROADCASTQ (R11), Z18
	VPBLENDMQ Z18, Z13, K1, Z8
	KSHIFTRD $8, K1, K1
	VPBLENDMQ Z18, Z13, K1, Z9
	KSHIFTRD $8, K1, K1
	VPBLENDMQ Z18, Z13, K1, Z10
	KSHIFTRD $8, K1, K1
	VPBLENDMQ Z18, Z13, K1, Z11

level:
	VPTESTNMQ Z13, Z8, K1
	VPTESTNMQ Z13, Z9, K2
	KORTESTB K1, K2
	JNZ first
	VPTESTNMQ Z13, Z10, K1
	VPTESTNMQ Z13, Z11, K2
	KORTESTB K1, K2
	JZ leaves
	JMP second

first:
	STEP(Z0, Z4, Z8, K1)
	STEP(Z1, Z5, Z9, K2)
	VPTESTNMQ Z13, Z10, K1
	VPTESTNMQ Z13, Z11, K2
	KORTESTB K1, K2
	JZ level

second:
	STEP(Z2, Z6, Z10, K1)
	STEP(Z3, Z7, Z11, K2)
	JMP level

leaves:
	VMOVDQU64 Z8, at-256(SP)
	VMOVDQU64 Z9, at-192(SP)
	VMOVDQU64 Z10, at-128(SP)
	VMOVDQU64 Z11, at-64(SP)
	CMPQ boxes_len+32(FP), $FAR
	JLT leaf
	MOVL AX, DX

fetch:
	TZCNTL DX, BX
	MOVQ at-256(SP)(BX*8), CX
	ANDL $0x7FFFFF, CX
	SHLQ $5, CX
	PREFETCHT0 (SI)(CX*1)
	PREFETCHT0 64(SI)(CX*1)
	BLSRL DX, DX
	JNZ fetch

leaf:
	TZCNTL AX, BX
	MOVQ BX, CX
	SHLQ $4, CX
	KEY((R8)(CX*1))
	MOVQ at-256(SP)(BX*8), BX
	LEAF(turn, more, pick)
	TZCNTL AX, BX
	MOVL (R9)(BX*4), CX
	CMPL R10, CX
	CMOVLCS R10, CX
	MOVL CX, (R9)(BX*4)
	BLSRL AX, AX
	JNZ leaf

next:
	ADDQ $16, R11
	DECQ R12
	JNZ tree

end:
	VZEROUPPER
	RET

	MORE(turn, more, pick)

// func one512(cells []uint64, boxes []box, trees []tree, none uint32, k *Key) uint32
TEXT ·one512(SB), NOSPLIT, $0-92
	MOVQ cells_base+0(FP), DI
	MOVQ boxes_base+24(FP), SI
	MOVQ trees_base+48(FP), R11
	MOVQ trees_len+56(FP), R12
	MOVL none+72(FP), R9
	MOVQ k+80(FP), R8
	TESTQ R12, R12
	JZ end
	CONSTANTS
	KEY((R8))
	MOVQ (R8), AX
	MOVQ 8(R8), R8

tree:
	CMPL R9, 8(R11)
	JLS next
	MOVQ (R11), BX
	TESTQ BX, BX
	JS leaf

level:
	NEXT
	JNS level

leaf:
	LEAF(turn, more, pick)
	CMPL R10, R9
	CMOVLCS R10, R9

next:
	ADDQ $16, R11
	DECQ R12
	JNZ tree
	VZEROUPPER

end:
	MOVL R9, ret+88(FP)
	RET

	MORE(turn, more, pick)
