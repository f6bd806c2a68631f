// What the walks in AVX-512 and in AVX2 share. In all functions:
//
//	DI  cells        R8   keys, or the key
//	SI  boxes        R9   out (burst) or the best rank (one)
//	R11 the tree     R12  trees left

// LEAF puts into R10 the rank that the leaf BX has for the key that MATCH4
// compares: of the first of its boxes that the key is inside, or its fallback. It goes
// through four boxes a turn; those behind the last are compared, and not counted. Whether
// one of them holds the key is no branch: nobody could foretell it. Uses CX, DX,
// R13, R14, R15.
#define LEAF(turn) \
	MOVQ    BX, R13;       \
	ANDL    $0x7FFFFF, R13; \
	SHLQ    $5, R13;       \
	ADDQ    SI, R13;       \
	MOVQ    BX, R14;       \
	SHRQ    $23, R14;      \
	ANDL    $0xFFFFF, R14; \
	MOVQ    BX, R10;       \
	SHRQ    $43, R10;      \
	ANDL    $0xFFFFF, R10; \
turn: \
	MATCH4;                \
	MOVL    $4, CX;        \
	CMPL    R14, CX;       \
	CMOVLLT R14, CX;       \
	ADDL    CX, CX;        \
	BZHIL   CX, DX, DX;    \
	MOVL    DX, CX;        \
	ORL     $0x100, CX;    \
	TZCNTL  CX, CX;        \
	SHLL    $4, CX;        \
	MOVWLZX 30(R13)(CX*1), R15; \
	MOVWLZX 14(R13)(CX*1), CX;  \
	SHLL    $16, R15;      \
	ORL     CX, R15;       \
	ADDQ    $128, R13;     \
	SUBL    $4, R14;       \
	XORL    CX, CX;        \
	TESTL   DX, DX;        \
	CMOVLNE R15, R10;      \
	CMOVLNE CX, R14;       \
	TESTL   R14, R14;      \
	JGT     turn

// NEXT goes from the table BX to the next cell, for the one key at R8, and tells
// by its sign whether that is a leaf. Uses CX, DX.
#define NEXT \
	MOVQ  BX, CX;         \
	SHRQ  $38, CX;        \
	ANDL  $1, CX;         \
	MOVQ  (R8)(CX*8), DX; \
	MOVQ  BX, CX;         \
	SHRQ  $32, CX;        \
	SHRXQ CX, DX, DX;     \
	MOVQ  BX, CX;         \
	SHRQ  $40, CX;        \
	ANDL  CX, DX;         \
	ADDL  BX, DX;         \
	MOVQ  (DI)(DX*8), BX; \
	TESTQ BX, BX
