// What the walks in AVX-512 and in AVX2 share. In all functions:
//
//	DI  cells        R8   keys, or the key
//	SI  boxes        R9   out (burst) or the best rank (one)
//	R11 the tree     R12  trees left

// FAR is how many boxes are so far from the core that a burst asks for those of
// all its leaves before it compares any: 128 KiB. Nearer ones it would only delay.
#define FAR 4096

// LEAF puts into R10 the rank that the leaf BX has for the key that MATCH4
// compares: of the first of its boxes that the key is inside, or its fallback. It
// goes through four boxes a turn; those behind the last are compared, and not
// counted. Whether one of the last four holds the key is no branch: nobody could
// foretell it. MORE stands elsewhere in the function, for leaves of more than
// four. Uses BX, CX, DX, R13, R14, R15.
#define LEAF(turn, more, pick) \
	RORXQ   $23, BX, R14;  \
	ANDL    $0xFFFFF, R14; \
	RORXQ   $43, BX, R10;  \
	ANDL    $0xFFFFF, R10; \
	ANDL    $0x7FFFFF, BX; \
	SHLQ    $5, BX;        \
	LEAQ    (SI)(BX*1), R13; \
turn: \
	MATCH4;                \
	CMPL    R14, $4;       \
	JGT     more;          \
	ADDL    R14, R14;      \
	BZHIL   R14, DX, DX;   \
pick: \
	LEAL    0x100(DX), CX; \
	TZCNTL  CX, CX;        \
	SHLL    $4, CX;        \
	MOVWLZX 30(R13)(CX*1), R15; \
	MOVWLZX 14(R13)(CX*1), CX;  \
	SHLL    $16, R15;      \
	ORL     CX, R15;       \
	TESTL   DX, DX;        \
	CMOVLNE R15, R10

#define MORE(turn, more, pick) \
more: \
	TESTL DX, DX;    \
	JNZ   pick;      \
	ADDQ  $128, R13; \
	SUBL  $4, R14;   \
	JMP   turn

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
